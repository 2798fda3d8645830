/*
 * foreign_vdso.c - makes an image look as if another kernel build had dumped it.
 *
 *	foreign_vdso STORE IMAGE NEW VVAR VDSO
 *
 * The program in it has built a vDSO of its own design and knows no other (apps/programs/foreign.c), its
 * data at VVAR, its code at VDSO.  In the new image these mappings are the kernel's, and
 * those of the real kernel are not there: just what a dump on a kernel with that vDSO would have written.
 */
#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/hash.h"
#include "store/scope.h"
#include "tests/images/copying.h"

static uint64_t vvar_at, vdso_at;

static const image_vma *mapping_at(const image_mm *mm, uint64_t start)
{
	for (u_int i = 0; i < mm->vmas.vmas_len; i++)
		if (mm->vmas.vmas_val[i].start == start)
			return &mm->vmas.vmas_val[i];
	fprintf(stderr, "foreign_vdso: no mapping begins at %lx\n", start);
	exit(1);
}

static void get_mm(size_t index, image_mm *mm)
{
	*mm = (image_mm){ 0 };
	MUST(image_get(image, IMAGE_MM, index, (xdrproc_t)xdr_image_mm, mm, &err));
}

/* The program's own becomes the kernel's, and the kernel's goes. */
static void change_mappings(image_mm *mm)
{
	u_int n = 0;
	for (u_int i = 0; i < mm->vmas.vmas_len; i++) {
		image_vma vma = mm->vmas.vmas_val[i];
		if (vma.kind == VMA_SPECIAL)
			continue;
		const char *now = vma.start == vdso_at ? "[vdso]" : vma.start == vvar_at ? "[vvar]" : NULL;
		if (now) {
			vma.kind = VMA_SPECIAL;
			vma.name = strdup(now);
		}
		mm->vmas.vmas_val[n++] = vma;
	}
	mm->vmas.vmas_len = n;
}

static void change_auxv(image_mm *mm, uint64_t vdso)
{
	Elf64_auxv_t *auxv = (Elf64_auxv_t *)mm->auxv.auxv_val;
	for (size_t i = 0; i < mm->auxv.auxv_len / sizeof(*auxv); i++)
		if (auxv[i].a_type == AT_SYSINFO_EHDR)
			auxv[i].a_un.a_val = vdso;
}

static char *content(const image_mm *mm, const image_vma *vma)
{
	size_t n;
	const struct page_run *runs = image_runs(image, mm->id, &n);
	char *bytes = calloc(1, vma->end - vma->start);
	for (size_t i = 0; i < n; i++)
		for (uint64_t j = 0; j < runs[i].npages; j++) {
			uint64_t at = (runs[i].page + j) * STORE_PAGE;
			if (at >= vma->start && at < vma->end)
				memcpy(bytes + (at - vma->start), image_page(image, runs[i].at + j), STORE_PAGE);
		}
	return bytes;
}

static void change_machine(void)
{
	image_mm mm;
	image_machine machine = { 0 };
	get_mm(0, &mm);
	MUST(image_get(image, IMAGE_MACHINE, 0, (xdrproc_t)xdr_image_machine, &machine, &err));
	const image_vma *vdso = mapping_at(&mm, vdso_at), *vvar = mapping_at(&mm, vvar_at);
	machine.kernel = "6.1.0-other";
	machine.vdso.vdso_len = (u_int)(vdso->end - vdso->start);
	machine.vdso.vdso_val = content(&mm, vdso);
	machine.vdso_hash = hash_bytes(machine.vdso.vdso_val, machine.vdso.vdso_len);
	machine.specials.specials_len = 2;
	machine.specials.specials_val = (image_special[]){
		{ "[vvar]", (vvar->end - vvar->start) / STORE_PAGE },
		{ "[vdso]", (vdso->end - vdso->start) / STORE_PAGE },
	};
	put(IMAGE_MACHINE, (xdrproc_t)xdr_image_machine, &machine);
}

static bool is_within(const image_vma *vma, uint64_t page)
{
	return page * STORE_PAGE >= vma->start && page * STORE_PAGE < vma->end;
}

/* Pages of the kernel's mappings are not in images. */
static void change_mm(size_t index)
{
	image_mm mm;
	size_t n;
	get_mm(index, &mm);
	image_vma vdso = *mapping_at(&mm, vdso_at), vvar = *mapping_at(&mm, vvar_at);
	const struct page_run *runs = image_runs(image, mm.id, &n);
	for (size_t i = 0; i < n; i++)
		for (uint32_t j = 0; j < runs[i].npages; j++) {
			struct page_run run = { runs[i].page + j, runs[i].at + j, 1, runs[i].space };
			if (!is_within(&vdso, run.page) && !is_within(&vvar, run.page))
				MUST(image_writer_add_run(writer, &run, &err));
		}
	change_mappings(&mm);
	change_auxv(&mm, vdso.start);
	put(IMAGE_MM, (xdrproc_t)xdr_image_mm, &mm);
}

int main(int argc, char **argv)
{
	if (argc != 6)
		return 2;
	vvar_at = strtoul(argv[4], NULL, 16);
	vdso_at = strtoul(argv[5], NULL, 16);
	copy_begin(argv[1], argv[2], argv[3]);
	for (uint32_t kind = 1; kind < 64; kind++) {
		if (kind == IMAGE_MACHINE)
			change_machine();
		else if (kind != IMAGE_MM)
			copy_records(kind);
		for (size_t i = 0; kind == IMAGE_MM && i < image_count(image, IMAGE_MM); i++)
			change_mm(i);
	}
	copy_end();
	return 0;
}
