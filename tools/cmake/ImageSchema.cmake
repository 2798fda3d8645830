# ImageSchema.cmake - everything that is generated from store/image.x and what it includes, the one
# declaration of the image's metadata:
#
#	generated/image.h, image_xdr.c	rpcgen: C types and XDR procedures
#	generated/image_json.[ch]	tools/gen-image.py: what `fsnap inspect --json` prints
#	image-format.md			tools/gen-image.py: the format document

set(schema ${PROJECT_SOURCE_DIR}/store/image.x)
file(GLOB schema_parts CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/store/image/*.x)
set(schema_dir ${PROJECT_BINARY_DIR}/generated)
file(MAKE_DIRECTORY ${schema_dir})

find_program(RPCGEN rpcgen REQUIRED)
find_package(Python3 REQUIRED COMPONENTS Interpreter)

# rpcgen derives the #include from the name it is given, and refuses to overwrite.
add_custom_command(
	OUTPUT ${schema_dir}/image.h ${schema_dir}/image_xdr.c
	COMMAND ${CMAKE_COMMAND} -E rm -f ${schema_dir}/image.h ${schema_dir}/image_xdr.c
	COMMAND ${RPCGEN} -C -M -h -o ${schema_dir}/image.h image.x
	COMMAND ${RPCGEN} -C -M -c -o ${schema_dir}/image_xdr.c image.x
	DEPENDS ${schema} ${schema_parts}
	WORKING_DIRECTORY ${PROJECT_SOURCE_DIR}/store
	COMMENT "Compiling store/image.x"
	VERBATIM)

set(schema_generator ${PROJECT_SOURCE_DIR}/tools/gen-image.py)
add_custom_command(
	OUTPUT ${schema_dir}/image_json.c ${schema_dir}/image_json.h ${PROJECT_BINARY_DIR}/image-format.md
	COMMAND Python3::Interpreter ${schema_generator} ${schema}
		--json-c ${schema_dir}/image_json.c --json-h ${schema_dir}/image_json.h
		--doc ${PROJECT_BINARY_DIR}/image-format.md
	DEPENDS ${schema} ${schema_parts} ${schema_generator}
	COMMENT "Deriving JSON and the format document from store/image.x"
	VERBATIM)

set(schema_headers ${schema_dir}/image.h ${schema_dir}/image_json.h)
add_library(image_schema OBJECT ${schema_dir}/image_xdr.c ${schema_dir}/image_json.c ${schema_headers})
target_link_libraries(image_schema PRIVATE fsnap_headers)
set_target_properties(image_schema PROPERTIES POSITION_INDEPENDENT_CODE ON)
set_source_files_properties(${schema_dir}/image_xdr.c PROPERTIES COMPILE_OPTIONS -w
	COMPILE_DEFINITIONS "xdr_array=bounded_xdr_array;xdr_bytes=bounded_xdr_bytes;xdr_string=bounded_xdr_string")

# Whoever compiles against the headers waits for them to be there.
add_custom_target(image_headers DEPENDS ${schema_headers})
add_dependencies(fsnap_headers image_headers)
