/*
 * ndctl_none.c - libndctl and libdaxctl as if there were no NVDIMM, for programs that hold libpmem2 as an archive.
 *
 * libpmem2 asks these two about NVDIMMs: bad blocks, unsafe shutdown counts, device DAX geometry.  fsnap asks it for
 * none of that (medium.c), so nobody ever calls these; but libpmem2.a is one object, and leaves their names undefined.
 * They have no archives, and their shared objects bring libcrypto, libkmod, libudev and others: 1.2 ms of every start.
 * 0 is "none" to these interfaces, except to ndctl_new(), which is where a user of libndctl begins.
 *
 * The shared libfsnap does not contain this file: it links libpmem2.so like everybody.
 */
#include <errno.h>

#define NONE_OR(answer, name) \
	long name(void);      \
	long name(void)       \
	{                     \
		return answer; \
	}
#define NONE(name) NONE_OR(0, name)

NONE_OR(-ENOSYS, ndctl_new)

NONE(daxctl_dev_get_devname)
NONE(daxctl_dev_get_first)
NONE(daxctl_dev_get_next)
NONE(ndctl_btt_get_block_device)
NONE(ndctl_bus_cmd_new_ars_cap)
NONE(ndctl_bus_cmd_new_clear_error)
NONE(ndctl_bus_get_first)
NONE(ndctl_bus_get_next)
NONE(ndctl_bus_get_provider)
NONE(ndctl_cmd_ars_cap_get_range)
NONE(ndctl_cmd_clear_error_get_cleared)
NONE(ndctl_cmd_submit)
NONE(ndctl_cmd_unref)
NONE(ndctl_dax_get_align)
NONE(ndctl_dax_get_daxctl_region)
NONE(ndctl_dax_get_resource)
NONE(ndctl_dax_get_size)
NONE(ndctl_dimm_get_dirty_shutdown)
NONE(ndctl_dimm_get_unique_id)
NONE(ndctl_namespace_get_block_device)
NONE(ndctl_namespace_get_btt)
NONE(ndctl_namespace_get_dax)
NONE(ndctl_namespace_get_first)
NONE(ndctl_namespace_get_first_badblock)
NONE(ndctl_namespace_get_mode)
NONE(ndctl_namespace_get_next)
NONE(ndctl_namespace_get_next_badblock)
NONE(ndctl_namespace_get_pfn)
NONE(ndctl_namespace_get_resource)
NONE(ndctl_namespace_get_size)
NONE(ndctl_pfn_get_block_device)
NONE(ndctl_pfn_get_resource)
NONE(ndctl_pfn_get_size)
NONE(ndctl_region_get_bus)
NONE(ndctl_region_get_first)
NONE(ndctl_region_get_first_badblock)
NONE(ndctl_region_get_first_dimm)
NONE(ndctl_region_get_id)
NONE(ndctl_region_get_next)
NONE(ndctl_region_get_next_badblock)
NONE(ndctl_region_get_next_dimm)
NONE(ndctl_region_get_numa_node)
NONE(ndctl_region_get_resource)
NONE(ndctl_unref)
