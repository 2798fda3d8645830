# Dependencies.cmake - the libraries fsnap stands on. README.md says what each is for.
#
#	fsnap_headers              include paths of fsnap and of everything below
#	fsnap_shared_dependencies  for libfsnap.so: shared objects
#	fsnap_static_dependencies  for the command and the unit tests: archives, whatever they need

find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)

set(dependency_names pmem2 tirpc capstone uring xxhash zstd lz4 sodium unwind-ptrace unwind-x86_64 unwind bpf)
pkg_check_modules(DEPENDENCIES REQUIRED
	libpmem2 libtirpc capstone liburing libxxhash libzstd liblz4 libsodium libunwind-ptrace libunwind-generic libunwind libbpf)

add_library(fsnap_headers INTERFACE)
target_include_directories(fsnap_headers INTERFACE
	${PROJECT_SOURCE_DIR} ${PROJECT_SOURCE_DIR}/store ${PROJECT_BINARY_DIR}/generated)
# <capstone.h> and <capstone/capstone.h> are both in use out there; pkg-config knows only the first.
target_include_directories(fsnap_headers SYSTEM INTERFACE ${DEPENDENCIES_INCLUDE_DIRS})

add_library(fsnap_shared_dependencies INTERFACE)
target_link_libraries(fsnap_shared_dependencies INTERFACE ${dependency_names} Threads::Threads)

add_library(fsnap_static_dependencies INTERFACE)
# Sanitized builds take shared objects: the sanitizer's own wrappers of the XDR functions look for them
# in shared objects only, and call through NULL otherwise.
if(NOT FSNAP_STATIC_DEPENDENCIES)
	target_link_libraries(fsnap_static_dependencies INTERFACE fsnap_shared_dependencies)
	return()
endif()

# libpmem2's constructor asks the processor what it can, instruction by instruction: 66 us in a virtual machine, where
# each question goes to the host. It becomes a function that store/medium.c calls when it needs libpmem2.
find_program(BINUTILS_objcopy objcopy REQUIRED)
function(late_pmem2 archive)
	set(late ${PROJECT_BINARY_DIR}/libpmem2_late.a)
	execute_process(COMMAND ${BINUTILS_objcopy}
		--rename-section .init_array=pmem2_late_start,alloc,load,data,contents
		--rename-section .fini_array=pmem2_late_end,alloc,load,data,contents
		${${archive}} ${late} COMMAND_ERROR_IS_FATAL ANY)
	set(${archive} ${late} PARENT_SCOPE)
endfunction()

foreach(name IN LISTS dependency_names ITEMS lzma elf z) # lzma: libunwind reads .gnu_debugdata; elf, z: libbpf
	find_library(ARCHIVE_${name} NAMES lib${name}.a)
	mark_as_advanced(ARCHIVE_${name})
	if(NOT ARCHIVE_${name})
		message(FATAL_ERROR "lib${name}.a is missing. Run tools/install-packages, or configure with "
			"-DFSNAP_STATIC_DEPENDENCIES=OFF to link shared objects")
	endif()
	if(name STREQUAL "pmem2")
		late_pmem2(ARCHIVE_pmem2)
	endif()
	target_link_libraries(fsnap_static_dependencies INTERFACE ${ARCHIVE_${name}})
endforeach()

# libpmem2.a calls libndctl and libdaxctl, which have no archives.
add_library(ndctl_none STATIC ${PROJECT_SOURCE_DIR}/store/ndctl_none.c)
target_link_libraries(fsnap_static_dependencies INTERFACE ndctl_none Threads::Threads)

# Linked at a fixed address, because starting is part of the product. Medians of 300 starts
# (gcc 12, glibc 2.36; an empty dynamic program: 0.60 ms):
#	all libraries as shared objects     4.9 ms  (26 objects: libndctl brings libcrypto, libtirpc krb5)
#	archives, position-independent      1.7 ms  (77 000 relocations, nearly all capstone's tables)
#	... with packed relocations         1.8 ms  (the same pages are written)
#	archives, fixed address             0.71 ms
# The command is also linked with libc's archive: in turns on a busy machine 0.87 -> 0.70 ms (`true`: 0.64).
# Binding at start (-z now) costs 0.02 ms of that. Debian's libunwind.a, besides, is not PIC. CMake's
# own switch for position-independent programs must stay off: its -pie would come after this.
target_link_options(fsnap_static_dependencies INTERFACE -no-pie)
