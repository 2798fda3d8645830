# SyscallNames.cmake - generated/syscall_names.inc: system call numbers to names, for plans and
# threads that are printed (restorer/syscall_names.c).

set(syscall_names ${PROJECT_BINARY_DIR}/generated/syscall_names.inc)
set(syscall_names_generator ${PROJECT_SOURCE_DIR}/tools/gen-syscalls.sh)
add_custom_command(
	OUTPUT ${syscall_names}
	COMMAND ${syscall_names_generator} ${CMAKE_C_COMPILER} > ${syscall_names}
	DEPENDS ${syscall_names_generator}
	COMMENT "Listing system calls"
	VERBATIM)
add_custom_target(syscall_names DEPENDS ${syscall_names})
add_dependencies(fsnap_headers syscall_names)
