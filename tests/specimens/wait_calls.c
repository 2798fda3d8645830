/*
 * Calls that wait for something but time: a full pipe, a lock of each sort, a FIFO's other end, a connection,
 * a signal, a child, a message and a semaphore of System V. All go on waiting and end with what
 * they waited for, none with EINTR, none early.
 */
#include "specimen.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

static int pipe_ends[2], queue, semaphores, pair[2];
static pid_t children[2];

static long in_write(void)
{
	return write(pipe_ends[1], "0123456789", 10);
}

static long in_flock(void)
{
	int fd = MUST(open(specimen_path("flock"), O_RDWR | O_CREAT, 0644));
	long result = flock(fd, LOCK_EX);
	close(fd);
	return result;
}

static long in_setlkw(void)
{
	int fd = MUST(open(specimen_path("lock"), O_RDWR | O_CREAT, 0644));
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	long result = fcntl(fd, F_OFD_SETLKW, &lock);
	close(fd);
	return result;
}

static long in_open_fifo(void)
{
	int fd = open(specimen_path("fifo.%d", specimen_number()), O_RDONLY);
	return fd < 0 ? -1 : close(fd);
}

static long in_msgrcv(void)
{
	struct {
		long type;
		char text[16];
	} message;
	return msgrcv(queue, &message, sizeof(message.text), 5, 0);
}

static long in_semop(void)
{
	struct sembuf down = { .sem_num = 0, .sem_op = -1 };
	return semop(semaphores, &down, 1);
}

static long in_sigwait(void)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN + 4);
	siginfo_t info;
	return sigwaitinfo(&set, &info) == SIGRTMIN + 4 ? info.si_value.sival_int : -1;
}

static long in_waitid(void)
{
	siginfo_t info = { 0 };
	return waitid(P_PID, (id_t)children[0], &info, WEXITED) < 0 ? -1 : info.si_status;
}

static long in_wait4(void)
{
	int status = 0;
	return wait4(children[1], &status, 0, NULL) < 0 ? -1 : WEXITSTATUS(status);
}

static long in_recv_all(void)
{
	char bytes[8];
	return recv(pair[0], bytes, sizeof(bytes), MSG_WAITALL);
}

static const struct {
	const char *name;
	long (*call)(void);
	long expected;
} calls[] = {
	{ "write to a full pipe", in_write, 10 },
	{ "flock", in_flock, 0 },
	{ "F_OFD_SETLKW", in_setlkw, 0 },
	{ "open of a FIFO", in_open_fifo, 0 },
	{ "msgrcv", in_msgrcv, 3 },
	{ "semop", in_semop, 0 },
	{ "sigwaitinfo", in_sigwait, 44 },
	{ "waitid", in_waitid, 21 },
	{ "wait4", in_wait4, 22 },
	{ "recv(MSG_WAITALL)", in_recv_all, 8 },
};
enum { CALLS = sizeof(calls) / sizeof(calls[0]) };

static void *run(void *arg)
{
	int i = (int)(intptr_t)arg;
	errno = 0;
	long result = calls[i].call();
	return (void *)(result < 0 ? -(long)errno : result);
}

static void set_up(int held[2])
{
	char page[4096] = { 0 };
	sigset_t set;
	MUST(pipe2(pipe_ends, O_NONBLOCK));
	while (write(pipe_ends[1], page, sizeof(page)) > 0)
		;
	MUST(fcntl(pipe_ends[1], F_SETFL, 0));
	MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	held[0] = MUST(open(specimen_path("flock"), O_RDWR | O_CREAT, 0644));
	MUST(flock(held[0], LOCK_EX));
	held[1] = MUST(open(specimen_path("lock"), O_RDWR | O_CREAT, 0644));
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	MUST(fcntl(held[1], F_OFD_SETLK, &lock));
	MUST(mkfifo(specimen_path("fifo.%d", specimen_number()), 0644));
	queue = MUST(msgget(IPC_PRIVATE, 0600));
	semaphores = MUST(semget(IPC_PRIVATE, 1, 0600));
	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN + 4);
	MUST_ZERO(pthread_sigmask(SIG_BLOCK, &set, NULL));
	for (int i = 0; i < 2; i++) {
		children[i] = MUST(fork());
		if (children[i] == 0) {
			while (access(specimen_path("end.%d", specimen_number()), F_OK) < 0)
				sleep_ms(2);
			_exit(21 + i);
		}
	}
}

static void give(int held[2])
{
	char page[4096];
	struct {
		long type;
		char text[16];
	} message = { 5, "abc" };
	struct sembuf up = { .sem_num = 0, .sem_op = 1 };
	MUST(fcntl(pipe_ends[0], F_SETFL, O_NONBLOCK));
	while (read(pipe_ends[0], page, sizeof(page)) == sizeof(page))
		;
	close(held[0]);
	close(held[1]);
	close(MUST(open(specimen_path("fifo.%d", specimen_number()), O_WRONLY)));
	MUST(msgsnd(queue, &message, 3, 0));
	MUST(semop(semaphores, &up, 1));
	MUST(sigqueue(getpid(), SIGRTMIN + 4, (union sigval){ .sival_int = 44 }));
	close(MUST(open(specimen_path("end.%d", specimen_number()), O_WRONLY | O_CREAT, 0644)));
	MUST(write(pair[1], "abcd", 4));
	sleep_ms(5);
	MUST(write(pair[1], "efgh", 4));
}

int main(void)
{
	while (specimen_round()) {
		int held[2];
		pthread_t threads[CALLS];
		set_up(held);
		for (int i = 0; i < CALLS; i++)
			threads[i] = start_blocked(run, (void *)(intptr_t)i);
		specimen_ready();
		sleep_ms(20);
		for (int i = 0; i < CALLS; i++)
			if (pthread_tryjoin_np(threads[i], NULL) == 0)
				expect_text("has ended too early", "", calls[i].name);
		give(held);
		for (int i = 0; i < CALLS; i++) {
			void *result = NULL;
			struct timespec limit;
			clock_gettime(CLOCK_REALTIME, &limit);
			limit.tv_sec += 10;
			int error = pthread_timedjoin_np(threads[i], &result, &limit);
			expect_int(calls[i].name, calls[i].expected, error ? -error : (intptr_t)result);
		}
		close(pipe_ends[0]);
		close(pipe_ends[1]);
		close(pair[0]);
		close(pair[1]);
		MUST(msgctl(queue, IPC_RMID, NULL));
		MUST(semctl(semaphores, 0, IPC_RMID));
	}
	return specimen_end();
}
