# Flags.cmake - how everything but the agent is compiled and linked.

set(CMAKE_C_STANDARD 17)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS ON)

# No -DNDEBUG: an assertion that stops a dump is better than an image that is wrong.
set(CMAKE_C_FLAGS_RELEASE "-O2 -g")
set(CMAKE_C_FLAGS_DEBUG "-O1 -g -fno-omit-frame-pointer")

# Empty, as sources that define it themselves do.
add_compile_definitions(_GNU_SOURCE=)
add_compile_options(-Wall -Wextra $<$<BOOL:${FSNAP_WERROR}>:-Werror>)

if(FSNAP_FUZZ)
	add_compile_options(-fsanitize=fuzzer-no-link)
endif()
if(FSNAP_COVERAGE)
	# prefer-atomic: threads count side by side. abs-path: the report finds generated sources, too.
	add_compile_options(--coverage -fprofile-update=prefer-atomic -fprofile-abs-path)
	add_link_options(--coverage -Wl,--wrap=_exit,--wrap=__gcov_exit,--wrap=__gcov_execve) # tests/coverage.c
endif()
if(FSNAP_SANITIZE STREQUAL "thread")
	# Its shadow has fixed places, which Linux 6.6 and later, randomising more bits, may take (personality(2)).
	file(READ /proc/sys/vm/mmap_rnd_bits random_bits)
	if(random_bits GREATER 28)
		find_program(SETARCH setarch REQUIRED)
		set(CMAKE_CROSSCOMPILING_EMULATOR ${SETARCH};--addr-no-randomize)
	endif()
	add_compile_options(-fsanitize=thread -fno-sanitize-recover=all)
	add_link_options(-fsanitize=thread)
elseif(FSNAP_SANITIZE)
	add_compile_options(-fsanitize=address,undefined -fno-sanitize-recover=all)
	# Both in the program, where they are one: of two, shared or not, the one does not know where the other's reports
	# belong (log_path), and tests/run-checked would see only those of processes that somebody waits for.
	add_link_options(-fsanitize=address,undefined $<$<C_COMPILER_ID:GNU>:-static-libasan> $<$<C_COMPILER_ID:GNU>:-static-libubsan>)
else()
	add_compile_options(-fstack-protector-strong -fstack-clash-protection -fcf-protection
		"$<$<NOT:$<CONFIG:Debug>>:SHELL:-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2>")
endif()
add_link_options(-Wl,-z,relro,-z,now,-z,noexecstack,--as-needed)
