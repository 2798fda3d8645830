# Install.cmake - what `cmake --install` lays down for users of the command and of libfsnap.

include(CMakePackageConfigHelpers)

install(TARGETS fsnap)
install(TARGETS fsnap_shared fsnap_static EXPORT fsnap)
install(FILES engine/fsnap.h store/fsnap/error.h tools/cmocka/fsnap_cmocka.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/fsnap)

list(TRANSFORM dependency_names PREPEND -l OUTPUT_VARIABLE dependency_flags)
list(JOIN dependency_flags " " dependency_flags)
# Relative, so that a tree installed or moved elsewhere is right, too.
file(RELATIVE_PATH pkgconfig_to_prefix ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
configure_file(tools/cmake/fsnap.pc.in fsnap.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/fsnap.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/fsnap)
install(EXPORT fsnap NAMESPACE fsnap:: FILE fsnapTargets.cmake DESTINATION ${package_dir})
configure_package_config_file(tools/cmake/fsnapConfig.cmake.in fsnapConfig.cmake
	INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/fsnapConfigVersion.cmake
	COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/fsnapConfig.cmake ${PROJECT_BINARY_DIR}/fsnapConfigVersion.cmake
	DESTINATION ${package_dir})
