# Bpf.cmake - the BPF programs of bpf/: NAME.bpf.c -> NAME.bpf.o -> generated/NAME.skel.h, whose bytes
# libfsnap carries and whose names its loaders use.
#
# libbpf reads all of the kernel's type information (5 MB) before it loads one, which takes 17 ms. A light skeleton has the
# kernel look names up itself, in 3 ms; it has no maps that are found again, no global variables that are shared.
set(bpf_light flags)

# clang compiles them whatever compiles the rest. -g, because CO-RE relocations live in BTF; the DWARF
# beside it is dropped again.

find_program(BPF_CLANG NAMES clang clang-14 clang-15 clang-16 REQUIRED)
find_program(BPF_STRIP NAMES llvm-strip llvm-strip-14 llvm-strip-15 llvm-strip-16 REQUIRED)
find_program(BPFTOOL bpftool PATHS /usr/sbin /sbin REQUIRED)
mark_as_advanced(BPF_CLANG BPF_STRIP BPFTOOL)

# <asm/types.h> is the host's: -target bpf has none of its own.
set(bpf_flags -target bpf -mcpu=v3 -g -O2 -Wall -Wextra $<$<BOOL:${FSNAP_WERROR}>:-Werror> -Wno-unused-parameter
	-I${PROJECT_SOURCE_DIR} -isystem /usr/include/${CMAKE_LIBRARY_ARCHITECTURE})

file(GLOB bpf_programs CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/bpf/*.bpf.c)
file(GLOB bpf_headers CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/bpf/*.h)
set(bpf_skeletons)
foreach(source IN LISTS bpf_programs)
	get_filename_component(name ${source} NAME_WE)
	set(object ${PROJECT_BINARY_DIR}/bpf/${name}.bpf.o)
	set(skeleton ${PROJECT_BINARY_DIR}/generated/${name}.skel.h)
	set(light)
	if(name IN_LIST bpf_light)
		set(light -L)
	endif()
	add_custom_command(
		OUTPUT ${skeleton}
		COMMAND ${CMAKE_COMMAND} -E make_directory ${PROJECT_BINARY_DIR}/bpf
		COMMAND ${BPF_CLANG} ${bpf_flags} -c ${source} -o ${object}
		COMMAND ${BPF_STRIP} -g ${object}
		COMMAND ${BPFTOOL} gen skeleton ${light} ${object} name ${name}_bpf > ${skeleton}
		DEPENDS ${source} ${bpf_headers}
		COMMENT "Compiling bpf/${name}.bpf.c"
		VERBATIM)
	list(APPEND bpf_skeletons ${skeleton})
endforeach()

add_custom_target(bpf_skeletons DEPENDS ${bpf_skeletons})
add_dependencies(fsnap_headers bpf_skeletons)
