# Agent.cmake - the agent as bytes inside libfsnap: parasite/*.{c,S} -> agent.elf -> checked ->
# agent.bin -> agent_blob.S, which defines agent_blob and agent_blob_size (parasite/plan.h).
#
# It runs in other processes, without a libc, without a loader, on a page of stack, and must not
# touch floating point or vector state: hence the flags, and hence CheckAgent.cmake.

file(GLOB agent_sources CONFIGURE_DEPENDS
	${PROJECT_SOURCE_DIR}/parasite/*.c ${PROJECT_SOURCE_DIR}/parasite/*.S)
set(agent_script ${PROJECT_SOURCE_DIR}/parasite/agent.lds)
set(agent_dir ${PROJECT_BINARY_DIR}/agent)
set(agent_blob_source ${agent_dir}/agent_blob.S)

set(agent_flags
	-O2 -fpie -ffreestanding -nostdlib -fvisibility=hidden
	-fno-stack-protector -fcf-protection=none -fno-asynchronous-unwind-tables -Wframe-larger-than=2560
	-fno-sanitize=all -fno-lto -U_FORTIFY_SOURCE
	-Wall -Wextra $<$<BOOL:${FSNAP_WERROR}>:-Werror>
	# Loops that fill or copy must not become calls of memset or memcpy: there is no libc.
	$<$<C_COMPILER_ID:GNU>:-fno-tree-loop-distribute-patterns>)

add_library(agent OBJECT ${agent_sources})
target_include_directories(agent PRIVATE ${PROJECT_SOURCE_DIR})
target_compile_options(agent PRIVATE ${agent_flags})
# But for what runs in helpers of its own alone. As clang makes it for speed, the rest would not fit into AGENT_TEXT.
set(agent_general_sources ${agent_sources})
list(FILTER agent_general_sources EXCLUDE REGEX "/bulk\\.c$")
set_source_files_properties(${agent_general_sources} PROPERTIES
	COMPILE_OPTIONS "-mgeneral-regs-only;-fno-unroll-loops;$<$<C_COMPILER_ID:Clang>:-Os>")
set_target_properties(agent PROPERTIES
	C_STANDARD 17 C_EXTENSIONS ON POSITION_INDEPENDENT_CODE OFF INTERPROCEDURAL_OPTIMIZATION OFF)

# Coverage of a fuzzer has relocations and calls; libFuzzer's is off by -fno-sanitize=all.
if(CMAKE_C_COMPILER MATCHES "afl-[a-z-]*$")
	set_target_properties(agent PROPERTIES C_COMPILER_LAUNCHER "${CMAKE_COMMAND};-E;env;AFL_NOOPT=1")
endif()

# GNU binutils whatever the compiler: the script and the checks are written for them.
foreach(tool IN ITEMS ld.bfd objcopy readelf nm)
	find_program(BINUTILS_${tool} ${tool} REQUIRED)
	mark_as_advanced(BINUTILS_${tool})
endforeach()

# -pie: what would need a relocation leaves one to be found, instead of being settled for address 0.
file(MAKE_DIRECTORY ${agent_dir})
add_custom_command(
	OUTPUT ${agent_dir}/agent.bin
	COMMAND ${BINUTILS_ld.bfd} -pie --no-dynamic-linker -z noexecstack --build-id=none
		--no-undefined --no-warn-rwx-segments -T ${agent_script}
		-o ${agent_dir}/agent.elf $<TARGET_OBJECTS:agent>
	COMMAND ${BINUTILS_objcopy} -O binary ${agent_dir}/agent.elf ${agent_dir}/unchecked.bin
	COMMAND ${CMAKE_COMMAND} -D READELF=${BINUTILS_readelf} -D NM=${BINUTILS_nm}
		-D ELF=${agent_dir}/agent.elf -D BLOB=${agent_dir}/unchecked.bin
		-D "OBJECTS=$<JOIN:$<TARGET_OBJECTS:agent>,|>"
		-D CONTRACT=${PROJECT_SOURCE_DIR}/parasite/plan.h
		-P ${PROJECT_SOURCE_DIR}/tools/cmake/CheckAgent.cmake
	COMMAND ${CMAKE_COMMAND} -E rename ${agent_dir}/unchecked.bin ${agent_dir}/agent.bin
	DEPENDS agent $<TARGET_OBJECTS:agent> ${agent_script} ${PROJECT_SOURCE_DIR}/parasite/plan.h
		${PROJECT_SOURCE_DIR}/tools/cmake/CheckAgent.cmake
	COMMENT "Linking and checking the agent"
	COMMAND_EXPAND_LISTS
	VERBATIM)

configure_file(${PROJECT_SOURCE_DIR}/tools/cmake/agent_blob.S.in ${agent_blob_source} @ONLY)
set_source_files_properties(${agent_blob_source} PROPERTIES
	OBJECT_DEPENDS ${agent_dir}/agent.bin)
add_library(agent_blob OBJECT ${agent_blob_source})
