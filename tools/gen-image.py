#!/usr/bin/env python3
"""Derives from store/image.x, beside what rpcgen makes of it:

  --json-c, --json-h   a function per struct that writes it as JSON (store/json.h), and the tables
                       record kind -> struct and file kind -> struct
  --doc                the format document

Understood is the part of XDR (RFC 4506) that image.x uses. A comment before a declaration and one
behind a field are their documentation.
"""
import argparse
import os
import re
import sys
from dataclasses import dataclass, field

TOKEN = re.compile(r"/\*(?P<comment>.*?)\*/|(?P<word>[A-Za-z_]\w*|\d+)|(?P<mark>[{}<>\[\]=,;])", re.S)
NUMBERS = {"int": "i64", "hyper": "i64", "unsigned": "u64", "unsigned hyper": "u64"}
XDR_NAMES = {"int": "int", "hyper": "int64", "unsigned": "uint", "unsigned hyper": "uint64"}


@dataclass
class Field:
    type: str
    name: str
    bracket: str = ""   # "<" variable, "[" fixed length, "" a single one
    bound: str = ""
    doc: str = ""


@dataclass
class Declaration:
    name: str
    doc: str
    members: list = field(default_factory=list)   # Field, or (name, value, doc) of an enum


@dataclass
class Schema:
    doc: str = ""
    consts: list = field(default_factory=list)
    enums: dict = field(default_factory=dict)
    structs: dict = field(default_factory=dict)


def clean(comment):
    lines = [line.strip().lstrip("*").strip() for line in comment.strip().split("\n")]
    return "\n".join(lines).strip()


class Parser:
    """One token of look-ahead; comments are kept as documentation of what they stand at."""

    def __init__(self, text):
        self.tokens = []
        for match in TOKEN.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            self.tokens.append((match.lastgroup, match.group(match.lastgroup), line))
        self.at = 0
        self.pending = ""   # the comment just before the present token

    def peek(self):
        while self.at < len(self.tokens) and self.tokens[self.at][0] == "comment":
            self.pending = clean(self.tokens[self.at][1])
            self.at += 1
        return self.tokens[self.at] if self.at < len(self.tokens) else ("end", "", 0)

    def next(self, expected=None):
        kind, text, line = self.peek()
        if expected and text != expected:
            sys.exit(f"image.x:{line}: expected '{expected}', found '{text}'")
        self.at += 1
        return text

    def trailing_comment(self):
        """A comment on the line of the token just read."""
        line = self.tokens[self.at - 1][2]
        if self.at < len(self.tokens):
            kind, text, comment_line = self.tokens[self.at]
            if kind == "comment" and comment_line == line:
                self.at += 1
                return clean(text)
        return ""

    def take_pending(self):
        doc, self.pending = self.pending, ""
        return doc

    def schema(self):
        schema = Schema()
        self.peek()
        schema.doc = self.take_pending()
        while self.peek()[0] != "end":
            doc = self.take_pending()
            word = self.next()
            if word == "const":
                name = self.next()
                self.next("=")
                value = self.next()
                self.next(";")
                schema.consts.append((name, value, self.trailing_comment()))
            elif word == "enum":
                declaration = self.enum(doc)
                schema.enums[declaration.name] = declaration
            elif word == "struct":
                declaration = self.struct(doc)
                schema.structs[declaration.name] = declaration
            else:
                sys.exit(f"image.x: '{word}' is not understood here")
        return schema

    def enum(self, doc):
        declaration = Declaration(self.next(), doc)
        self.next("{")
        while self.peek()[1] != "}":
            name = self.next()
            self.next("=")
            value = int(self.next())
            if self.tokens[self.at][1] == ",":
                self.next()
            declaration.members.append((name, value, self.trailing_comment()))
        self.next("}")
        self.next(";")
        self.pending = ""
        return declaration

    def struct(self, doc):
        declaration = Declaration(self.next(), doc)
        self.next("{")
        while self.peek()[1] != "}":
            declaration.members.append(self.field())
        self.next("}")
        self.next(";")
        self.pending = ""
        return declaration

    def field(self):
        words = [self.next()]
        while self.peek()[0] == "word":
            words.append(self.next())
        result = Field(" ".join(words[:-1]), words[-1])
        if self.peek()[1] in ("<", "["):
            result.bracket = self.next()
            result.bound = self.next() if self.peek()[0] == "word" else ""
            self.next(">" if result.bracket == "<" else "]")
        self.next(";")
        result.doc = self.trailing_comment()
        return result


# --- C ---------------------------------------------------------------------------------------

def kind_prefix(member):
    """Of an opaque field whose comment names "PREFIX_KIND": the struct depends on `kind`."""
    match = re.search(r"\b(\w+)_KIND\b", member.doc)
    return match.group(1) if member.type == "opaque" and match else None


def value_code(schema, type_, value, indent):
    if type_ in NUMBERS:
        return f"{indent}json_{NUMBERS[type_]}(out, {value});\n"
    if type_ in schema.enums:
        return f"{indent}put_{type_}(out, {value});\n"
    if type_ in schema.structs:
        return f"{indent}image_json_{type_}(out, &{value});\n"
    sys.exit(f"image.x: type '{type_}' is not declared")


def field_code(schema, member):
    name, value = member.name, f"value->{member.name}"
    code = f'\tjson_key(out, "{name}");\n'
    variable = member.bracket == "<"
    length = f"{value}.{name}_len" if variable else member.bound
    items = f"{value}.{name}_val" if variable else value
    if member.type == "string":
        return code + f"\tjson_string(out, {value});\n"
    if member.type == "opaque" and kind_prefix(member):
        return code + f"\tput_by_kind(out, value->kind, {items}, {length});\n"
    if member.type == "opaque":
        return code + f"\tjson_bytes(out, {items}, {length});\n"
    if not member.bracket:
        return code + value_code(schema, member.type, value, "\t")
    return (code + "\tjson_array(out);\n"
            f"\tfor (size_t i = 0; i < {length}; i++)\n"
            + value_code(schema, member.type, f"{items}[i]", "\t\t")
            + "\tjson_close(out);\n")


def enum_code(declaration):
    names = [member[0] for member in declaration.members]
    prefix = names[0][:names[0].find("_") + 1]
    cases = "".join(f'\tcase {name}:\n\t\tjson_string(out, "{name.removeprefix(prefix).lower()}");\n'
                    "\t\treturn;\n" for name in names)
    return (f"static void put_{declaration.name}(struct json *out, {declaration.name} value)\n"
            f"{{\n\tswitch (value) {{\n{cases}\t}}\n\tjson_i64(out, (int)value);\n}}\n\n")


def struct_code(schema, declaration):
    fields = "".join(field_code(schema, member) for member in declaration.members)
    name = declaration.name
    return (f"void image_json_{name}(struct json *out, const {name} *value)\n"
            f"{{\n\tjson_object(out);\n{fields}\tjson_close(out);\n}}\n\n")


def record_kinds(schema):
    """(constant, struct) of enum image_kind, whose comments begin with the struct's name."""
    for name, value, doc in schema.enums["image_kind"].members:
        struct = re.match(r"\w+", doc)
        if not struct or struct.group(0) not in schema.structs:
            sys.exit(f"image.x: the comment of {name} must begin with its struct")
        yield name, struct.group(0)


def file_kinds(schema):
    """(kind, struct) of the structs that an image_file.state may hold."""
    for declaration in schema.structs.values():
        for member in declaration.members:
            prefix = kind_prefix(member)
            if prefix:
                return [(name.removeprefix(prefix + "_"), name) for name in schema.structs
                        if name.startswith(prefix + "_")]
    return []


def any_code(struct):
    return (f"static void any_{struct}(struct json *out, const void *value)\n"
            f"{{\n\timage_json_{struct}(out, value);\n}}\n\n")


def row_code(struct, name, first=""):
    return (f"\t{{{first}.name = \"{name}\", .size = sizeof({struct}),\n"
            f"\t .xdr = (xdrproc_t)xdr_{struct}, .json = any_{struct}}},\n")


LOOKUP_FILE = """
const struct image_file_kind *image_file_kind(const char *name)
{
	for (size_t i = 0; i < sizeof(file_kinds) / sizeof(file_kinds[0]); i++)
		if (strcmp(file_kinds[i].name, name) == 0)
			return &file_kinds[i];
	return NULL;
}

"""
LOOKUP_RECORD = """
const struct image_record_kind *image_record_kind(uint32_t kind)
{
	for (size_t i = 0; i < sizeof(record_kinds) / sizeof(record_kinds[0]); i++)
		if (record_kinds[i].kind == kind)
			return &record_kinds[i];
	return NULL;
}
"""
PUT_BY_KIND = """
/* A kind that is not known, or does not decode, is still worth its size. */
static void put_by_kind(struct json *out, const char *name, char *bytes, unsigned length)
{
	const struct image_file_kind *kind = image_file_kind(name);
	void *object = kind ? calloc(1, kind->size) : NULL;
	XDR xdr;
	xdrmem_create(&xdr, bytes, length, XDR_DECODE);
	if (object && kind->xdr(&xdr, object) && xdr_getpos(&xdr) == length)
		kind->json(out, object);
	else
		json_bytes(out, bytes, length);
	if (object)
		xdr_free(kind->xdr, object);
	free(object);
}

"""
HEADER = """/* Made from image.x by tools/gen-image.py. */
#ifndef IMAGE_JSON_H
#define IMAGE_JSON_H

#include <stddef.h>
#include <stdint.h>

#include "image.h"
#include "store/json.h"

/* What a record of a kind is; NULL where the kind is not known. */
struct image_record_kind {
	uint32_t kind;	  /* enum image_kind */
	const char *name; /* "process" */
	size_t size;	  /* of the struct */
	xdrproc_t xdr;
	void (*json)(struct json *out, const void *value);
};
const struct image_record_kind *image_record_kind(uint32_t kind);

/* What image_file.state is for image_file.kind; NULL where the kind is not known. */
struct image_file_kind {
	const char *name; /* "pipe" */
	size_t size;
	xdrproc_t xdr;
	void (*json)(struct json *out, const void *value);
};
const struct image_file_kind *image_file_kind(const char *name);

"""


def make_header(schema):
    functions = "".join(f"void image_json_{name}(struct json *out, const {name} *value);\n"
                        for name in schema.structs)
    return HEADER + functions + "\n#endif\n"


def make_source(schema):
    files, records = file_kinds(schema), list(record_kinds(schema))
    code = "/* Made from image.x by tools/gen-image.py. */\n#include \"image_json.h\"\n\n"
    code += "#include <stdlib.h>\n#include <string.h>\n\n"
    used = {member.type for struct in schema.structs.values() for member in struct.members}
    code += "".join(any_code(struct) for _, struct in files + records)
    code += "static const struct image_file_kind file_kinds[] = {\n"
    code += "".join(row_code(struct, name) for name, struct in files)
    code += "};\n" + LOOKUP_FILE
    code += "static const struct image_record_kind record_kinds[] = {\n"
    code += "".join(row_code(struct, struct.removeprefix("image_"), f".kind = {constant}, ")
                    for constant, struct in records)
    code += "};\n" + LOOKUP_RECORD + PUT_BY_KIND
    code += "".join(enum_code(enum) for name, enum in schema.enums.items() if name in used)
    code += "".join(struct_code(schema, struct) for struct in schema.structs.values())
    return code.rstrip("\n") + "\n"


# --- the document --------------------------------------------------------------------------------

DOC_INTRO = """# The metadata of an fsnap image

Made from `store/image.x` by `tools/gen-image.py`; do not edit. The file around it, superblock,
commit slots and tables, is described in `store/README.md`.

"""
DOC_RECORDS = """
## Records

The metadata section is a sequence of records, each in XDR (RFC 4506): `uint kind`, `uint flags`
(bit 0: a reader that does not know the kind must refuse the image, naming `name`; without it the
record is skipped), `string name<31>`, `opaque body<>`. The body is the struct of the kind, exactly.

| kind | number | struct | how many |
|---|---|---|---|
"""


def type_text(schema, member):
    name = XDR_NAMES.get(member.type, member.type)
    if member.type in schema.structs:
        name = f"[{name}](#{name})"
    if member.bracket == "<":
        return f"{name} &lt;{member.bound}&gt;"
    return f"{name} [{member.bound}]" if member.bracket else name


def cell(text):
    return text.replace("\n", " ").replace("|", "\\|").replace("<", "&lt;")


def make_document(schema):
    doc = DOC_INTRO + schema.doc.partition("\n")[2].strip() + "\n" + DOC_RECORDS
    values = {name: value for name, value, _ in schema.enums["image_kind"].members}
    docs = {name: text for name, _, text in schema.enums["image_kind"].members}
    for constant, struct in record_kinds(schema):
        count = docs[constant].partition(":")[2].strip()
        doc += f"| `{constant}` | {values[constant]} | [{struct}](#{struct}) | {cell(count)} |\n"
    doc += "\n## Bounds\n\n| name | value | meaning |\n|---|---|---|\n"
    doc += "".join(f"| `{name}` | {value} | {cell(text)} |\n" for name, value, text in schema.consts)
    for enum in schema.enums.values():
        doc += f"\n## {enum.name}\n\n{enum.doc}\n\n| name | value | meaning |\n|---|---|---|\n"
        doc += "".join(f"| `{name}` | {value} | {cell(text)} |\n" for name, value, text in enum.members)
    for struct in schema.structs.values():
        text = "" if struct.doc.startswith("---") else struct.doc
        doc += f"\n## {struct.name}\n\n{text}\n\n| field | type | meaning |\n|---|---|---|\n"
        doc += "".join(f"| `{member.name}` | {type_text(schema, member)} | {cell(member.doc)} |\n"
                       for member in struct.members)
    return re.sub(r"\n{3,}", "\n\n", doc)


def read_schema(path):
    """The declarations of a file with those of the files that it includes; what a part begins with is its heading."""
    with open(path, encoding="utf-8") as file:
        text = file.read()

    def part(match):
        inner = read_schema(os.path.join(os.path.dirname(path), match.group(1)))
        return re.sub(r"^/\*.*?\*/", "", inner, count=1, flags=re.S)
    return re.sub(r'^#include "(.*)"$', part, text, flags=re.M)


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("schema")
    arguments.add_argument("--json-c")
    arguments.add_argument("--json-h")
    arguments.add_argument("--doc")
    options = arguments.parse_args()
    schema = Parser(read_schema(options.schema)).schema()
    for path, make in ((options.json_c, make_source), (options.json_h, make_header),
                       (options.doc, make_document)):
        if path:
            with open(path, "w", encoding="utf-8") as file:
                file.write(make(schema))


if __name__ == "__main__":
    main()
