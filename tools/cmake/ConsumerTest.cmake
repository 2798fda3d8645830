# ConsumerTest.cmake - a program of somebody else's finds, compiles against, links and runs an
# installed libfsnap, through the CMake package and through pkg-config.

set(consumer_prefix ${PROJECT_BINARY_DIR}/consumer/prefix)

add_test(NAME install.tree
	COMMAND ${CMAKE_COMMAND} --install ${PROJECT_BINARY_DIR} --prefix ${consumer_prefix})
set_tests_properties(install.tree PROPERTIES LABELS unit FIXTURES_SETUP installed)

add_test(NAME install.cmake-package
	COMMAND ${CMAKE_CTEST_COMMAND}
		--build-and-test ${PROJECT_SOURCE_DIR}/tools/cmake/consumer ${PROJECT_BINARY_DIR}/consumer/build
		--build-generator ${CMAKE_GENERATOR}
		--build-options -DCMAKE_PREFIX_PATH=${consumer_prefix}
			-DCMAKE_C_COMPILER=${CMAKE_C_COMPILER}
		--test-command ctest --output-on-failure)
set_tests_properties(install.cmake-package PROPERTIES LABELS unit FIXTURES_REQUIRED installed)

add_test(NAME install.pkg-config
	COMMAND ${PROJECT_SOURCE_DIR}/tools/cmake/consumer/by-pkg-config ${CMAKE_C_COMPILER}
		${consumer_prefix} ${CMAKE_INSTALL_LIBDIR} ${PROJECT_BINARY_DIR}/consumer/by-pkg-config)
set_tests_properties(install.pkg-config PROPERTIES LABELS unit FIXTURES_REQUIRED installed)
