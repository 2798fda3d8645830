/*
 * A program that lives on another kernel, as far as it can tell: it builds a vDSO of its own design,
 * with the data before it and a page more than any kernel's has, and makes all who have looked up functions of the
 * real one use it: the C library's pointers, and the auxiliary vector.
 *
 * Its functions count how often they are called, which writes to its data: where that is a kernel's,
 * they would be the program's end.  The program goes on asking for the time by all of them, and says when an
 * answer differs from what the kernel says.
 *
 *	foreign LOG [inside]	inside: one thread stays in the middle of a function
 */
#include <elf.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, DATA_PAGES = 3, CODE_PAGES = 3, TEXT = 0x1e40, SPAN = 64, TABLES = 0x200 };

static const struct {
	const char *name;
	int nr;
} functions[] = {
	{ "clock_gettime", SYS_clock_gettime }, { "gettimeofday", SYS_gettimeofday }, { "time", SYS_time },
	{ "clock_getres", SYS_clock_getres },	{ "getcpu", SYS_getcpu },	      { "getrandom", SYS_getrandom },
};
enum { FUNCTIONS = sizeof(functions) / sizeof(functions[0]) };

static char *data, *vdso; /* [vvar], [vdso] */
static const char *real;

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

/* --- the foreign vDSO --------------------------------------------------------------- */

/* lock incl counter(%rip); mov $nr, %eax; syscall; ret */
static void write_function(char *at, int nr)
{
	unsigned char code[15] = { 0xf0, 0xff, 0x05, 0, 0, 0, 0, 0xb8, 0, 0, 0, 0, 0x0f, 0x05, 0xc3 };
	int32_t away = (int32_t)(data - (at + 7));
	memcpy(code + 3, &away, 4);
	memcpy(code + 8, &nr, 4);
	memcpy(at, code, sizeof(code));
	memset(at + sizeof(code), 0x90, SPAN - sizeof(code));
}

static char *function_at(int i)
{
	return vdso + TEXT + i * SPAN;
}

/* One function more, that nobody looks up: jmp to itself. */
static char *trap(void)
{
	return function_at(FUNCTIONS);
}

static void write_tables(void)
{
	Elf64_Ehdr *header = (Elf64_Ehdr *)vdso;
	Elf64_Shdr *sections = (Elf64_Shdr *)(vdso + TABLES);
	Elf64_Sym *symbols = (Elf64_Sym *)(vdso + TABLES + 0x200);
	char *names = vdso + TABLES + 0x600, *next = names + 1;
	*header = (Elf64_Ehdr){
		.e_ident = { 0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT },
		.e_type = ET_DYN, .e_machine = EM_X86_64, .e_version = EV_CURRENT, .e_shoff = TABLES,
		.e_ehsize = sizeof(*header), .e_shentsize = sizeof(*sections), .e_shnum = 4,
		.e_phentsize = sizeof(Elf64_Phdr),
	};
	for (int i = 0; i < FUNCTIONS; i++) {
		symbols[i + 1] = (Elf64_Sym){
			.st_name = (Elf64_Word)(next - names), .st_info = ELF64_ST_INFO(STB_GLOBAL, STT_FUNC),
			.st_shndx = 3, .st_value = (Elf64_Addr)(function_at(i) - vdso), .st_size = SPAN,
		};
		next += sprintf(next, "__vdso_%s", functions[i].name) + 1;
	}
	sections[1] = (Elf64_Shdr){ .sh_type = SHT_DYNSYM, .sh_link = 2, .sh_offset = TABLES + 0x200,
				    .sh_size = (FUNCTIONS + 1) * sizeof(*symbols) };
	sections[2] = (Elf64_Shdr){ .sh_type = SHT_STRTAB, .sh_offset = TABLES + 0x600,
				    .sh_size = (Elf64_Xword)(next - names) };
	sections[3] = (Elf64_Shdr){ .sh_type = SHT_PROGBITS, .sh_flags = SHF_EXECINSTR | SHF_ALLOC,
				    .sh_addr = TEXT, .sh_offset = TEXT, .sh_size = (FUNCTIONS + 1) * SPAN };
}

static void build(void)
{
	enum { SIZE = (DATA_PAGES + CODE_PAGES) * PAGE };
	/* Nobody's mapping merges with these. */
	data = mmap(NULL, SIZE + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (data == MAP_FAILED || mprotect(data += PAGE, SIZE, PROT_READ | PROT_WRITE) < 0)
		fail("mmap");
	vdso = data + DATA_PAGES * PAGE;
	write_tables();
	for (int i = 0; i < FUNCTIONS; i++)
		write_function(function_at(i), functions[i].nr);
	memcpy(trap(), "\xeb\xfe", 2);
	memset(data, 1, DATA_PAGES * PAGE);
	if (mprotect(vdso, CODE_PAGES * PAGE, PROT_READ | PROT_EXEC) < 0)
		fail("mprotect");
}

/* --- making it the only one ------------------------------------------------------------ */

static void *look_up(const char *base, const char *name)
{
	const Elf64_Ehdr *header = (const Elf64_Ehdr *)base;
	const Elf64_Shdr *sections = (const Elf64_Shdr *)(base + header->e_shoff);
	for (int i = 0; i < header->e_shnum; i++) {
		const Elf64_Sym *symbols = (const Elf64_Sym *)(base + sections[i].sh_offset);
		if (sections[i].sh_type != SHT_DYNSYM)
			continue;
		const char *names = base + sections[sections[i].sh_link].sh_offset;
		for (size_t j = 0; j < sections[i].sh_size / sizeof(*symbols); j++)
			if (strncmp(names + symbols[j].st_name, "__vdso_", 7) == 0 &&
			    strcmp(names + symbols[j].st_name + 7, name) == 0)
				return (void *)(base + symbols[j].st_value);
	}
	return NULL;
}

/* Words in [from, to) that hold addresses of real functions get those of the foreign ones. */
static int replace(uint64_t *from, const uint64_t *to, bool readable, int prot)
{
	int n = 0;
	for (uint64_t *word = from; readable && word < to; word++)
		for (int i = 0; i < FUNCTIONS; i++) {
			void *theirs = look_up(real, functions[i].name);
			if (!theirs || *word != (uint64_t)theirs)
				continue;
			uint64_t page = (uint64_t)word & -(uint64_t)PAGE;
			mprotect((void *)page, PAGE, PROT_READ | PROT_WRITE);
			*word = (uint64_t)function_at(i);
			mprotect((void *)page, PAGE, prot);
			n++;
		}
	return n;
}

/* All private memory of files: where linkers and libraries keep what they have looked up. */
static int replace_all(void)
{
	char line[512], perms[8], path[256];
	unsigned long start, end;
	int n = 0;
	FILE *maps = fopen("/proc/self/maps", "r");
	while (maps && fgets(line, sizeof(line), maps)) {
		path[0] = '\0';
		if (sscanf(line, "%lx-%lx %7s %*s %*s %*s %255s", &start, &end, perms, path) < 3)
			continue;
		bool data_of_file = perms[2] == '-' && perms[3] == 'p' && (path[0] == '/' || path[0] == '\0');
		n += replace((uint64_t *)start, (const uint64_t *)end, data_of_file && perms[0] == 'r',
			     PROT_READ | (perms[1] == 'w' ? PROT_WRITE : 0));
	}
	if (maps)
		fclose(maps);
	return n;
}

static void replace_auxv(char **envp)
{
	while (*envp++)
		;
	for (Elf64_auxv_t *aux = (Elf64_auxv_t *)envp; aux->a_type != AT_NULL; aux++)
		if (aux->a_type == AT_SYSINFO_EHDR)
			aux->a_un.a_val = (uint64_t)vdso;
}

/* --- using it ------------------------------------------------------------------------------ */

static char *log_path;

static void say(const char *what)
{
	int fd = open(log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
	if (fd < 0 || write(fd, what, strlen(what)) < 0)
		exit(1);
	close(fd);
}

static void expect(const char *what, bool good)
{
	char line[128];
	snprintf(line, sizeof(line), "wrong: %s\n", what);
	if (!good)
		say(line);
}

static long long by_kernel(clockid_t clock)
{
	struct timespec t;
	syscall(SYS_clock_gettime, clock, &t);
	return t.tv_sec * 1000000000ll + t.tv_nsec;
}

/* The clock never goes back, and lies between what the kernel says before and after. */
static void check_clock(const char *what, int (*get)(clockid_t, struct timespec *), clockid_t clock)
{
	struct timespec t = { 0 };
	long long before = by_kernel(clock);
	expect(what, get(clock, &t) == 0);
	long long seen = t.tv_sec * 1000000000ll + t.tv_nsec;
	expect(what, seen >= before - 10000000 && seen <= by_kernel(clock) + 1000);
}

static void check(void)
{
	struct timeval tv = { 0 };
	struct timespec t = { 0 };
	uint64_t dice[2][2] = { 0 };
	int (*get)(clockid_t, struct timespec *) = look_up(vdso, "clock_gettime");
	long (*roll)(void *, size_t, unsigned, void *, size_t) = look_up(vdso, "getrandom");
	int (*cpu)(unsigned *, unsigned *, void *) = look_up(vdso, "getcpu");
	unsigned number = 9999;
	check_clock("clock_gettime of the library", clock_gettime, CLOCK_MONOTONIC);
	check_clock("clock_gettime of the library", clock_gettime, CLOCK_REALTIME);
	check_clock("clock_gettime of the library", clock_gettime, CLOCK_MONOTONIC_COARSE);
	check_clock("clock_gettime as looked up", get, CLOCK_BOOTTIME);
	expect("gettimeofday", gettimeofday(&tv, NULL) == 0 && llabs(tv.tv_sec - by_kernel(0) / 1000000000) <= 1);
	expect("time", llabs(time(NULL) - by_kernel(CLOCK_REALTIME) / 1000000000) <= 1);
	expect("clock_getres", clock_getres(CLOCK_MONOTONIC, &t) == 0 && t.tv_nsec > 0);
	expect("sched_getcpu", sched_getcpu() >= 0);
	expect("getcpu", cpu(&number, NULL, NULL) == 0 && number < 4096);
	expect("getrandom", roll(dice[0], 16, 0, NULL, 0) == 16 && roll(dice[1], 16, 0, NULL, 0) == 16);
	expect("getrandom", memcmp(dice[0], dice[1], 16) != 0);
	expect("AT_SYSINFO_EHDR", getauxval(AT_SYSINFO_EHDR) != 0);
}

static void *stay_inside(void *arg)
{
	((void (*)(void))trap())();
	return arg;
}

int main(int argc, char **argv, char **envp)
{
	pthread_t thread;
	log_path = argv[1];
	real = (const char *)getauxval(AT_SYSINFO_EHDR);
	clock_gettime(CLOCK_MONOTONIC, &(struct timespec){ 0 }); /* bound, if that is done late */
	gettimeofday(&(struct timeval){ 0 }, NULL);
	time(NULL);
	build();
	int n = replace_all();
	replace_auxv(envp);
	unsigned before = *(volatile unsigned *)data;
	check();
	char line[128];
	snprintf(line, sizeof(line), "at %p %p replaced %d counted %u\n", (void *)data, (void *)vdso, n,
		 *(volatile unsigned *)data - before);
	say(line);
	if (argc > 2)
		pthread_create(&thread, NULL, stay_inside, NULL);
	for (;;) {
		check();
		say("round\n");
		usleep(20000);
	}
}
