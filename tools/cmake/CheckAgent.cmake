# CheckAgent.cmake - fails the build unless the agent can run at any address with nothing around it.
#
#	cmake -D READELF= -D NM= -D OBJECTS='a.o|b.o' -D ELF= -D BLOB= -D CONTRACT= -P CheckAgent.cmake
#
# 1. Objects refer to each other by distance only: no relocation that would hold an address.
# 2. Linked, no relocation and no undefined symbol is left.
# 3. There is no writable data: text is all that is mapped, read and execute.
# 4. It fits into AGENT_TEXT and opens with the table of entries (AGENT_MAGIC), both of plan.h.

cmake_minimum_required(VERSION 3.25)

function(read_tool output)
	execute_process(COMMAND ${ARGN} OUTPUT_VARIABLE text COMMAND_ERROR_IS_FATAL ANY)
	set(${output} "${text}" PARENT_SCOPE)
endfunction()

function(refuse what lines)
	message(FATAL_ERROR "The agent ${what}:\n${lines}")
endfunction()

# 1. Debug information may hold addresses: it is not loaded.
string(REPLACE "|" ";" OBJECTS "${OBJECTS}")
foreach(object IN LISTS OBJECTS)
	read_tool(text ${READELF} --relocs --wide ${object})
	string(REGEX REPLACE "Relocation section '\\.rela\\.(debug|eh_frame|comment)[^\n]*\n([0-9a-f ][^\n]*\n)*" ""
		text "${text}")
	string(REGEX MATCHALL "[^\n]*R_X86_64_[^\n]*" relocations "${text}")
	list(FILTER relocations EXCLUDE REGEX "R_X86_64_(PC32|PLT32|PC64) ")
	if(relocations)
		list(JOIN relocations "\n" lines)
		refuse("refers to something by address in ${object}" "${lines}")
	endif()
endforeach()

# 2.
read_tool(relocations ${READELF} --relocs --wide ${ELF})
if(relocations MATCHES "R_X86_64_")
	refuse("needs relocation" "${relocations}")
endif()
read_tool(undefined ${NM} --undefined-only ${ELF})
if(NOT undefined STREQUAL "")
	refuse("uses symbols it does not have" "${undefined}")
endif()

# 3. Section flags: W write, A allocated. Empty sections do no harm.
read_tool(sections ${READELF} --section-headers --wide ${ELF})
string(REGEX MATCHALL "[^\n]*(PROGBITS|NOBITS)[^\n]* +WA[^\n]*" writable "${sections}")
list(FILTER writable EXCLUDE REGEX "(PROGBITS|NOBITS) +[0-9a-f]+ [0-9a-f]+ 000000 ")
if(writable)
	list(JOIN writable "\n" lines)
	refuse("has writable data" "${lines}")
endif()

# 4.
file(STRINGS ${CONTRACT} contract REGEX "^#define AGENT_(TEXT|MAGIC) ")
string(REGEX MATCH "AGENT_TEXT ([0-9]+)" _ "${contract}")
set(limit ${CMAKE_MATCH_1})
string(REGEX MATCH "AGENT_MAGIC 0x(..)(..)(..)(..)" _ "${contract}")
set(magic ${CMAKE_MATCH_4}${CMAKE_MATCH_3}${CMAKE_MATCH_2}${CMAKE_MATCH_1}) # as it lies in memory
file(SIZE ${BLOB} size)
if(size GREATER limit)
	refuse("is too big" "${size} bytes, AGENT_TEXT is ${limit}")
endif()
file(READ ${BLOB} start LIMIT 4 HEX)
if(NOT start STREQUAL magic)
	refuse("does not open with its table of entries" "first bytes ${start}, AGENT_MAGIC is ${magic}")
endif()
message(STATUS "The agent has ${size} of ${limit} bytes")
