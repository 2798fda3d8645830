# Checked.cmake - tests of builds that look for errors of their own: sanitized ones, and such whose command runs under
# valgrind (FSNAP_COMMAND_WRAPPER).
#
#	checked		in front of what a test runs: run-checked, or nothing
#	PYTHON3		in here with that in front
#	fsnap_command	what tests take for fsnap: started by the wrapper, if there is one
#
# What is dumped is never part of this: specimens and the programs of drivers are what a user would dump.

set(FSNAP_COMMAND_WRAPPER "" CACHE STRING "what tests start fsnap by, for instance valgrind with its options")
set(checked)
if(NOT FSNAP_SANITIZE AND NOT FSNAP_COMMAND_WRAPPER)
	function(settle_checked_tests)
	endfunction()
	return()
endif()

set(reports ${CMAKE_CURRENT_BINARY_DIR}/reports)
set(checked ${CMAKE_CURRENT_SOURCE_DIR}/run-checked --reports ${reports})
set(PYTHON3 ${checked} ${PYTHON3})
set(wrapper ${FSNAP_COMMAND_WRAPPER} ${CMAKE_CROSSCOMPILING_EMULATOR}) # Flags.cmake says which machines need the latter
list(APPEND checked ${wrapper})
if(wrapper)
	list(JOIN wrapper "' '" wrapper)
	set(fsnap_command ${CMAKE_CURRENT_BINARY_DIR}/wrapped/fsnap)
	# Some tests start it with an environment of their own.
	file(WRITE ${fsnap_command} "#!/bin/sh
export FSNAP_REPORTS=\"\${FSNAP_REPORTS:-${reports}}\"
exec '${wrapper}' ${PROJECT_BINARY_DIR}/fsnap \"$@\"
")
	file(CHMOD ${fsnap_command} FILE_PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE
		WORLD_READ WORLD_EXECUTE)
endif()

# --- which tests, and how long ------------------------------------------------------

# What cannot be run so, each with the reason. ctest lists them as disabled.
set(unchecked
	# no fsnap in them
	"control\\..*"
	# programs that have libfsnap in them and are dumped themselves, or are not built so
	"unit\\.copies" "tools\\.(cmocka|pytest_fsnap)"
	# calls fail that a sanitizer makes before main(): it, or the loader in front of it, dies of some
	"sweep\\.places"
	# packages are made of what is released
	"tools\\.package")
if(FSNAP_SANITIZE STREQUAL "thread")
	list(APPEND unchecked
		# --user-ns: who has threads may not have another user namespace (unshare(2)), and TSan has one of its own
		"cli\\.clones"
		# sanitized threads are what its agent is in, at whose gates they wait for each other by words of assembly
		"unit\\.agent_home")
endif()

# One test of each way through fsnap, for a few minutes with the unit tests: tools/check-sanitized --quick, .ci/run.
set(quick
	"specimen\\.(memory_private|thread_robust|socket_pair_processes|event_epoll|proc_children)\\.(restored|live)\\.0"
	"specimen\\.(memory_cow_family|pipe_content|file_locks|timer_posix|tty_pair)\\.restored\\.1000"
	"cli\\.(core|foreground|heat|inspect|sign|template|watch)"
	"refuse\\.(images|kinds|policy)")

# What is checked takes several times as long.
set(patience 4)

# The last that tests/CMakeLists.txt does.
function(settle_checked_tests)
	list(JOIN unchecked "|" unchecked)
	list(JOIN quick "|" quick)
	get_property(tests DIRECTORY PROPERTY TESTS)
	foreach(test IN LISTS tests)
		get_test_property(${test} TIMEOUT limit)
		get_test_property(${test} LABELS labels)
		math(EXPR limit "${limit} * ${patience}")
		if(test MATCHES "^(${unchecked})$")
			set_tests_properties(${test} PROPERTIES DISABLED TRUE)
		elseif(test MATCHES "^(${quick})$")
			list(APPEND labels quick)
		endif()
		set_tests_properties(${test} PROPERTIES TIMEOUT ${limit} LABELS "${labels}")
	endforeach()
	if(FSNAP_SANITIZE) # whose shadow is address space
		set_tests_properties(refuse.leftovers PROPERTIES ENVIRONMENT "FSNAP_NOT_OBSTACLES=little memory")
	endif()
endfunction()
