#include "engine/machine.h"

#include <stdlib.h>
#include <string.h>
#include <sys/platform/x86.h>
#include <sys/resource.h>
#include <sys/utsname.h>

#include "engine/procfs.h"
#include "store/hash.h"
#include "store/scope.h"
#include "store/store.h"

struct memory_special *machine_specials(size_t *n, struct fsnap_error *err)
{
	cleanup_fd int self = procfs_open(getpid(), err);
	cleanup_free char *text = self >= 0 ? procfs_read(self, "maps", NULL, err) : NULL;
	struct memory_special *specials = calloc(16, sizeof(*specials));
	*n = 0;
	struct procfs_map map;
	for (char *cursor = text; specials && *n < 16 && procfs_next_map(&cursor, &map);) {
		if (strncmp(map.path, "[vdso", 5) != 0 && strncmp(map.path, "[vvar", 5) != 0)
			continue;
		struct memory_special *special = &specials[(*n)++];
		snprintf(special->name, sizeof(special->name), "%s", map.path);
		special->start = map.start;
		special->end = map.end;
	}
	if (text && specials)
		return specials;
	free(specials);
	fail(err, FSNAP_E_NOMEM, ENOMEM, "looking for the vDSO");
	return NULL;
}

/* The state components the system has enabled (XCR0), by XGETBV. */
static uint64_t xcr0(void)
{
	uint32_t low, high;
	__asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
	return (uint64_t)high << 32 | low;
}

/* As the C library read it at start: in a virtual machine each CPUID instruction costs a trip to the
 * hypervisor (some 25 us where this was measured). */
static void describe_cpu(image_machine *machine)
{
	const struct cpuid_feature *one = __x86_get_cpuid_feature_leaf(CPUID_INDEX_1);
	const struct cpuid_feature *seven = __x86_get_cpuid_feature_leaf(CPUID_INDEX_7);
	machine->cpuid_1_ecx = one->cpuid_array[2];
	machine->cpuid_1_edx = one->cpuid_array[3];
	machine->cpuid_7_ebx = seven->cpuid_array[1];
	machine->cpuid_7_ecx = seven->cpuid_array[2];
	machine->cpuid_7_edx = seven->cpuid_array[3];
	if (machine->cpuid_1_ecx & 1u << 27) /* OSXSAVE */
		machine->xcr0 = xcr0();
}

int machine_describe(image_machine *machine, struct fsnap_error *err)
{
	struct utsname name;
	uname(&name);
	*machine = (image_machine){ .kernel = strdup(name.release) };
	describe_cpu(machine);
	size_t n;
	cleanup_free struct memory_special *specials = machine_specials(&n, err);
	image_special *list = specials ? calloc(n + 1, sizeof(*list)) : NULL;
	if (!list || !machine->kernel) {
		free(list);
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "describing the machine");
	}
	machine->specials.specials_val = list;
	machine->specials.specials_len = (u_int)n;
	for (size_t i = 0; i < n; i++) {
		size_t size = specials[i].end - specials[i].start;
		list[i] = (image_special){ strdup(specials[i].name), size / STORE_PAGE };
		if (!list[i].name)
			return fail(err, FSNAP_E_NOMEM, ENOMEM, "describing the machine");
		if (strcmp(specials[i].name, "[vdso]") != 0)
			continue;
		machine->vdso_hash = hash_bytes((void *)specials[i].start, size);
		machine->vdso.vdso_val = malloc(size);
		if (!machine->vdso.vdso_val)
			return fail(err, FSNAP_E_NOMEM, ENOMEM, "describing the machine");
		memcpy(machine->vdso.vdso_val, (void *)specials[i].start, size);
		machine->vdso.vdso_len = (u_int)size;
	}
	return 0;
}

static int lacks(struct fsnap_error *err, const char *what, uint64_t wanted, uint64_t have)
{
	fail(err, FSNAP_E_IMAGE_CPU, 0, "this CPU lacks features the image was made with: %s bits %#llx", what,
	     (unsigned long long)(wanted & ~have));
	return error_hint(err, "restore on a CPU at least as new; programs choose their code by these "
			       "features when they start");
}

static int check_cpu(const image_machine *there, const image_machine *here, struct fsnap_error *err)
{
	const struct {
		const char *what;
		uint64_t wanted, have;
	} masks[] = {
		{ "XCR0", there->xcr0, here->xcr0 },
		/* bit 27 of leaf 1 says what the system did, bit 31 that there is a hypervisor */
		{ "CPUID.1:ECX", there->cpuid_1_ecx & 0x77ffffffu, here->cpuid_1_ecx },
		{ "CPUID.1:EDX", there->cpuid_1_edx, here->cpuid_1_edx },
		{ "CPUID.7:EBX", there->cpuid_7_ebx, here->cpuid_7_ebx },
		{ "CPUID.7:ECX", there->cpuid_7_ecx, here->cpuid_7_ecx },
	};
	for (size_t i = 0; i < sizeof(masks) / sizeof(masks[0]); i++)
		if (masks[i].wanted & ~masks[i].have)
			return lacks(err, masks[i].what, masks[i].wanted, masks[i].have);
	return 0;
}

int machine_check(const image_machine *there, struct fsnap_error *err)
{
	image_machine here = { 0 };
	describe_cpu(&here);
	return check_cpu(there, &here, err);
}

void machine_raise_files(void)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}
