/*
 * victim - a process that notices whatever is done to it, and says so.
 *
 * Thirteen threads and a child, each with a way of its own to be hurt: blocked system calls, signals
 * in flight, timers, vector registers, files, pipes.  Each moves a counter in the file "progress"
 * as long as all is well; what is not well is a line in the file "harm".  At rest it neither maps,
 * opens nor masks anything, so that what it looks like from outside is the same at any time.
 * Ends when the file "end" appears.  `victim N` rests N times as long, everywhere: of many that all take their processor
 * time from each other none would get anywhere.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { SLEEPER, READER, WRITER, PING, PONG, COMPUTER, FILER, SIGNALLED, SENDER, TALKER, CHILD,
       WAITER, POLLER, TIMED, COUNTERS };
static const char *const names[] = { "sleeper", "reader", "writer", "ping", "pong", "computer",
				     "filer", "signalled", "sender", "talker", "child", "waiter",
				     "poller", "timed" };

static volatile uint64_t *progress;
static int harm, plumbing[2], talk[2], bell, queue, file;
static _Atomic uint32_t ball;
static _Atomic uint64_t received, alarms, ticks;
static long pace = 1;

static void hurt(int who, const char *what, long expected, long seen)
{
	char line[200];
	int n = snprintf(line, sizeof(line), "%s: %s: expected %ld, seen %ld (errno %d)\n", names[who],
			 what, expected, seen, errno);
	if (write(harm, line, (size_t)n) != n)
		abort();
}

static void expect(int who, const char *what, long expected, long seen)
{
	if (expected != seen)
		hurt(who, what, expected, seen);
}

static void rest(long us)
{
	struct timespec time = { 0, us * 1000 * pace };
	syscall(SYS_nanosleep, &time, NULL);
}

static void *sleeper(void *arg)
{
	for (;; progress[SLEEPER]++) {
		struct timespec time = { 0, 3000000 * pace }, left = { 0, 0 }, begin, end;
		clock_gettime(CLOCK_MONOTONIC, &begin);
		expect(SLEEPER, "nanosleep", 0, syscall(SYS_nanosleep, &time, &left));
		clock_gettime(CLOCK_MONOTONIC, &end);
		long took = (end.tv_sec - begin.tv_sec) * 1000000000 + end.tv_nsec - begin.tv_nsec;
		expect(SLEEPER, "slept no less than it was to", 1, took >= 3000000 * pace);
	}
	return arg;
}

static void *reader(void *arg)
{
	uint64_t got = 0;
	for (uint64_t next = 0;; next++, progress[READER]++) {
		expect(READER, "read", sizeof(got), read(plumbing[0], &got, sizeof(got)));
		expect(READER, "sequence", (long)next, (long)got);
	}
	return arg;
}

static void *writer(void *arg)
{
	for (uint64_t next = 0;; next++, progress[WRITER]++) {
		expect(WRITER, "write", sizeof(next), write(plumbing[1], &next, sizeof(next)));
		rest(1500);
	}
	return arg;
}

/* The ball is even when it is ping's turn. */
static void *player(void *arg)
{
	int who = (int)(intptr_t)arg;
	for (;; progress[who]++) {
		for (uint32_t seen; ((seen = atomic_load(&ball)) & 1) != (uint32_t)(who == PONG);)
			if (syscall(SYS_futex, &ball, FUTEX_WAIT, seen, NULL, NULL, 0) < 0 && errno != EAGAIN)
				hurt(who, "futex", 0, errno);
		if (who == PING)
			rest(2000);
		atomic_fetch_add(&ball, 1);
		syscall(SYS_futex, &ball, FUTEX_WAKE, 1, NULL, NULL, 0);
	}
	return NULL;
}

static double sum(long n)
{
	double x = 0, y = 1;
	for (long i = 1; i < n; i++) {
		x += 1.0 / (double)i;
		y *= 1.0 + x / 1e6;
	}
	return x + y;
}

static void *computer(void *arg)
{
	double first = sum(20000);
	for (;; progress[COMPUTER]++) {
		expect(COMPUTER, "floating point", 1, sum(20000) == first);
		rest(1000);
	}
	return arg;
}

static void *filer(void *arg)
{
	char block[4096], again[4096];
	for (uint64_t n = 0;; n++, progress[FILER]++) {
		memset(block, (int)n, sizeof(block));
		expect(FILER, "position", (long)(n % 16) * 4096, lseek(file, 0, SEEK_CUR));
		expect(FILER, "write", sizeof(block), write(file, block, sizeof(block)));
		expect(FILER, "pread", sizeof(again),
		       pread(file, again, sizeof(again), (off_t)(n % 16) * 4096));
		expect(FILER, "content", 0, memcmp(block, again, sizeof(block)));
		if (n % 16 == 15)
			expect(FILER, "lseek", 0, lseek(file, 0, SEEK_SET));
		rest(1500);
	}
	return arg;
}

/* Neither handler masks anything, so that a mask seen from outside does not depend on when. So they must be done before the
 * next signal comes, or they pile up: nothing here touches a file's page, whose fault may wait for the disk. */
static void on_queued(int number, siginfo_t *info, void *context)
{
	(void)context;
	(void)number;
	uint64_t next = atomic_load(&received);
	expect(SIGNALLED, "queued signal", (long)(uint32_t)next, (long)(uint32_t)info->si_value.sival_int);
	atomic_store(&received, next + 1);
}

static void on_alarm(int number)
{
	if (number == SIGALRM)
		alarms++;
	else
		ticks++;
}

static void handle(int number, void (*plain)(int), void (*full)(int, siginfo_t *, void *), int flags)
{
	struct sigaction action = { .sa_flags = flags };
	if (plain)
		action.sa_handler = plain;
	else
		action.sa_sigaction = full;
	sigaction(number, &action, NULL);
}

/* What handlers have counted; on from what the file says, which may be of a later life than we are. */
static void count(int who, _Atomic uint64_t *counter, uint64_t *told)
{
	uint64_t now = atomic_load(counter);
	progress[who] += now - *told;
	*told = now;
}

static void *signalled(void *arg)
{
	static char alternate[1 << 20]; /* deep enough for what comes while nobody lets us run; no page of it is there before */
	stack_t stack = { .ss_sp = alternate, .ss_size = sizeof(alternate) };
	sigaltstack(&stack, NULL);
	sigset_t set;
	sigemptyset(&set);
	pthread_sigmask(SIG_SETMASK, &set, NULL);
	for (;;)
		pause();
	return arg;
}

/* Half of the time there is nothing in flight, half of the time one signal is. */
static void *sender(void *arg)
{
	for (uint32_t next = 0;; next++, progress[SENDER]++) {
		expect(SENDER, "sigqueue", 0,
		       sigqueue(getpid(), SIGRTMIN + 1, (union sigval){ .sival_int = (int)next }));
		rest(1500);
		uint64_t one = 1;
		expect(SENDER, "eventfd", sizeof(one), write(bell, &one, sizeof(one)));
		while (atomic_load(&received) != (uint64_t)next + 1)
			rest(500);
	}
	return arg;
}

static void *waiter(void *arg)
{
	struct epoll_event event;
	uint64_t count;
	for (;; progress[WAITER]++) {
		expect(WAITER, "epoll_wait", 1, epoll_wait(queue, &event, 1, -1));
		expect(WAITER, "eventfd", sizeof(count), read(bell, &count, sizeof(count)));
	}
	return arg;
}

static void *talker(void *arg)
{
	for (uint32_t next = 0, got; ; next++, progress[TALKER]++) {
		expect(TALKER, "send", sizeof(next), write(talk[0], &next, sizeof(next)));
		expect(TALKER, "receive", sizeof(got), read(talk[0], &got, sizeof(got)));
		expect(TALKER, "echo", (long)next, (long)got);
		rest(2000);
	}
	return arg;
}

static void be_child(void)
{
	close(talk[0]);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (uint32_t next = 0, got; ; next++, progress[CHILD]++) {
		if (read(talk[1], &got, sizeof(got)) != sizeof(got))
			hurt(CHILD, "read", sizeof(got), -1);
		expect(CHILD, "sequence", (long)next, (long)got);
		if (write(talk[1], &got, sizeof(got)) != sizeof(got))
			hurt(CHILD, "write", sizeof(got), -1);
	}
}

static void start(void *(*body)(void *), int who)
{
	pthread_t thread;
	pthread_attr_t small;
	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, 65536);
	if (pthread_create(&thread, &small, body, (void *)(intptr_t)who))
		abort();
}

int main(int argc, char **argv)
{
	if (argc > 1)
		pace = strtol(argv[1], NULL, 10);
	int map = open("progress", O_RDWR | O_CREAT | O_TRUNC, 0644);
	if (map < 0 || ftruncate(map, 4096) < 0)
		return 1;
	progress = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, map, 0);
	close(map);
	harm = open("harm", O_WRONLY | O_CREAT | O_APPEND | O_TRUNC, 0644);
	file = open("file", O_RDWR | O_CREAT | O_TRUNC, 0644);
	bell = eventfd(0, 0);
	queue = epoll_create1(0);
	struct epoll_event event = { .events = EPOLLIN };
	sigset_t all;
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	handle(SIGALRM, on_alarm, NULL, SA_NODEFER | SA_RESTART | SA_ONSTACK);
	handle(SIGRTMIN + 2, on_alarm, NULL, SA_NODEFER | SA_RESTART);
	handle(SIGRTMIN + 1, NULL, on_queued, SA_NODEFER | SA_RESTART | SA_SIGINFO);
	if (pipe(plumbing) < 0 || socketpair(AF_UNIX, SOCK_STREAM, 0, talk) < 0 ||
	    epoll_ctl(queue, EPOLL_CTL_ADD, bell, &event) < 0)
		return 1;
	if (fork() == 0)
		be_child();
	close(talk[1]);
	void *(*const bodies[])(void *) = { sleeper, reader, writer, player, player, computer, filer,
					    signalled, sender, talker, NULL, waiter };
	for (int i = SLEEPER; i <= WAITER; i++)
		if (bodies[i])
			start(bodies[i], i);
	struct itimerval often = { { 0, 4000 * pace }, { 0, 4000 * pace } };
	setitimer(ITIMER_REAL, &often, NULL);
	struct sigevent how = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 2 };
	struct itimerspec period = { { 0, 5000000 * pace }, { 0, 5000000 * pace } };
	timer_t timer;
	timer_create(CLOCK_MONOTONIC, &how, &timer);
	timer_settime(timer, 0, &period, NULL);
	int idle = epoll_create1(0);
	close(open("ready", O_WRONLY | O_CREAT, 0644));
	uint64_t told[2] = { 0, 0 };
	for (uint64_t before = 0, rounds = 0;; progress[POLLER]++, rounds++) {
		struct epoll_event none;
		expect(POLLER, "epoll_wait for a while", 0, epoll_wait(idle, &none, 1, (int)(3 * pace)));
		count(SIGNALLED, &received, &told[0]);
		count(TIMED, &ticks, &told[1]);
		uint64_t now = alarms;
		if (rounds % 256 == 255) {
			expect(POLLER, "alarms go on", 1, now > before);
			before = now;
			if (access("end", F_OK) == 0)
				_exit(0);
		}
	}
}
