/*
 * needs_reader.h - trials that want `reader`, an iterator of bpf/, and say why (`err`) where there is none.
 */
#ifndef TESTS_NEEDS_READER_H
#define TESTS_NEEDS_READER_H

#define NEEDS_READER()                                                \
	do {                                                          \
		if (!reader) {                                        \
			print_message("%s: not here\n", err.message); \
			skip();                                       \
		}                                                     \
	} while (0)

#endif
