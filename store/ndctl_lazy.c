/*
 * ndctl_lazy.c - libndctl and libdaxctl on first use, for programs that hold libpmem2 as an archive.
 *
 * libpmem2 asks these two about NVDIMMs: bad blocks, unsafe shutdown counts, device DAX geometry.
 * Their shared objects bring libcrypto, libkmod, libudev and others: 1.2 ms of every start (an empty
 * program: 0.6), for questions that most machines never hear.  So the symbols that libpmem2.a leaves
 * undefined are defined here; each loads its library when it is first called and passes the call on.
 *
 * What must hold: every forwarded function takes at most six arguments, all integers or pointers,
 * and returns one or nothing, so that on x86-64 all of it travels in general registers and one
 * signature fits all.  A library that is not installed answers 0, which these interfaces use for
 * "none", except ndctl_new(), which is where a user of libndctl begins: -ENOSYS, and libpmem2
 * reports that to its caller.
 *
 * The shared libfsnap does not contain this file: it links libpmem2.so like everybody.
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>

typedef long word;
typedef word forwarded_fn(word, word, word, word, word, word);

struct lazy_symbol {
	const char *library;
	const char *name;
	word missing; /* the answer where the library is not installed */
	_Atomic(forwarded_fn *) function;
};

#define NDCTL "libndctl.so.6"
#define DAXCTL "libdaxctl.so.1"

/* Finding it twice in two threads does no harm: both find the same. dlopen() counts for itself. */
static forwarded_fn *lazy_find(struct lazy_symbol *symbol)
{
	forwarded_fn *function = atomic_load_explicit(&symbol->function, memory_order_acquire);
	if (function)
		return function;
	void *library = dlopen(symbol->library, RTLD_NOW | RTLD_LOCAL);
	if (!library)
		return NULL;
	function = (forwarded_fn *)dlsym(library, symbol->name);
	atomic_store_explicit(&symbol->function, function, memory_order_release);
	return function;
}

#define FORWARD_OR(answer, from, symbol_name)                                  \
	word symbol_name(word a, word b, word c, word d, word e, word f);      \
	word symbol_name(word a, word b, word c, word d, word e, word f)       \
	{                                                                      \
		static struct lazy_symbol symbol = { .library = from,          \
						     .name = #symbol_name,     \
						     .missing = answer };      \
		forwarded_fn *function = lazy_find(&symbol);                   \
		return function ? function(a, b, c, d, e, f) : symbol.missing; \
	}
#define FORWARD(from, symbol_name) FORWARD_OR(0, from, symbol_name)

FORWARD_OR(-ENOSYS, NDCTL, ndctl_new)

FORWARD(DAXCTL, daxctl_dev_get_devname)
FORWARD(DAXCTL, daxctl_dev_get_first)
FORWARD(DAXCTL, daxctl_dev_get_next)
FORWARD(NDCTL, ndctl_btt_get_block_device)
FORWARD(NDCTL, ndctl_bus_cmd_new_ars_cap)
FORWARD(NDCTL, ndctl_bus_cmd_new_clear_error)
FORWARD(NDCTL, ndctl_bus_get_first)
FORWARD(NDCTL, ndctl_bus_get_next)
FORWARD(NDCTL, ndctl_bus_get_provider)
FORWARD(NDCTL, ndctl_cmd_ars_cap_get_range)
FORWARD(NDCTL, ndctl_cmd_clear_error_get_cleared)
FORWARD(NDCTL, ndctl_cmd_submit)
FORWARD(NDCTL, ndctl_cmd_unref)
FORWARD(NDCTL, ndctl_dax_get_align)
FORWARD(NDCTL, ndctl_dax_get_daxctl_region)
FORWARD(NDCTL, ndctl_dax_get_resource)
FORWARD(NDCTL, ndctl_dax_get_size)
FORWARD(NDCTL, ndctl_dimm_get_dirty_shutdown)
FORWARD(NDCTL, ndctl_dimm_get_unique_id)
FORWARD(NDCTL, ndctl_namespace_get_block_device)
FORWARD(NDCTL, ndctl_namespace_get_btt)
FORWARD(NDCTL, ndctl_namespace_get_dax)
FORWARD(NDCTL, ndctl_namespace_get_first)
FORWARD(NDCTL, ndctl_namespace_get_first_badblock)
FORWARD(NDCTL, ndctl_namespace_get_mode)
FORWARD(NDCTL, ndctl_namespace_get_next)
FORWARD(NDCTL, ndctl_namespace_get_next_badblock)
FORWARD(NDCTL, ndctl_namespace_get_pfn)
FORWARD(NDCTL, ndctl_namespace_get_resource)
FORWARD(NDCTL, ndctl_namespace_get_size)
FORWARD(NDCTL, ndctl_pfn_get_block_device)
FORWARD(NDCTL, ndctl_pfn_get_resource)
FORWARD(NDCTL, ndctl_pfn_get_size)
FORWARD(NDCTL, ndctl_region_get_bus)
FORWARD(NDCTL, ndctl_region_get_first)
FORWARD(NDCTL, ndctl_region_get_first_badblock)
FORWARD(NDCTL, ndctl_region_get_first_dimm)
FORWARD(NDCTL, ndctl_region_get_id)
FORWARD(NDCTL, ndctl_region_get_next)
FORWARD(NDCTL, ndctl_region_get_next_badblock)
FORWARD(NDCTL, ndctl_region_get_next_dimm)
FORWARD(NDCTL, ndctl_region_get_numa_node)
FORWARD(NDCTL, ndctl_region_get_resource)
FORWARD(NDCTL, ndctl_unref)
