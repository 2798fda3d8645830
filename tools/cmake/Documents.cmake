# Documents.cmake - the manual and what shells complete, from the tables and files that say it already:
#
#	man/*.1		tools/gen-manual.py, from the tables of engine/cli/
#	man/libfsnap.3	likewise, from engine/fsnap.h and store/fsnap/error.h
#	man/fsnap-image.5	likewise, from store/README.md
#	completion/	tools/gen-completion.py: for bash, zsh and fish

add_executable(fsnap-tables engine/cli/tables/main.c $<TARGET_OBJECTS:fsnap_cli>)
target_link_libraries(fsnap-tables PRIVATE fsnap_private)

set(tables ${PROJECT_BINARY_DIR}/generated/tables.json)
set(man_dir ${PROJECT_BINARY_DIR}/man)
set(completion_dir ${PROJECT_BINARY_DIR}/completion)
set(manual_generator ${PROJECT_SOURCE_DIR}/tools/gen-manual.py)
set(completion_generator ${PROJECT_SOURCE_DIR}/tools/gen-completion.py)
set(manual_sources ${PROJECT_SOURCE_DIR}/engine/fsnap.h ${PROJECT_SOURCE_DIR}/store/fsnap/error.h
	${PROJECT_SOURCE_DIR}/store/README.md)
set(completions ${completion_dir}/fsnap ${completion_dir}/_fsnap ${completion_dir}/fsnap.fish)

add_custom_command(OUTPUT ${tables}
	COMMAND fsnap-tables > ${tables}
	DEPENDS fsnap-tables # a command names it only as built before, not as newer
	COMMENT "Reading the tables of the command" VERBATIM)
# Which pages there are, the tables say: one file stands for all.
add_custom_command(OUTPUT ${man_dir}/fsnap.1
	COMMAND ${CMAKE_COMMAND} -E rm -rf ${man_dir}
	COMMAND Python3::Interpreter ${manual_generator} ${tables} ${manual_sources} ${man_dir}
	DEPENDS ${tables} ${manual_generator} ${manual_sources}
	COMMENT "Writing the manual" VERBATIM)
add_custom_command(OUTPUT ${completions}
	COMMAND Python3::Interpreter ${completion_generator} ${tables} ${completion_dir}
	DEPENDS ${tables} ${completion_generator}
	COMMENT "Writing what shells complete" VERBATIM)
add_custom_target(documents ALL DEPENDS ${man_dir}/fsnap.1 ${completions})

install(DIRECTORY ${man_dir}/ DESTINATION ${CMAKE_INSTALL_MANDIR}/man1 FILES_MATCHING PATTERN "*.1")
install(DIRECTORY ${man_dir}/ DESTINATION ${CMAKE_INSTALL_MANDIR}/man3 FILES_MATCHING PATTERN "*.3")
install(DIRECTORY ${man_dir}/ DESTINATION ${CMAKE_INSTALL_MANDIR}/man5 FILES_MATCHING PATTERN "*.5")
install(FILES ${completion_dir}/fsnap DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)
install(FILES ${completion_dir}/_fsnap DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions)
install(FILES ${completion_dir}/fsnap.fish DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d)
