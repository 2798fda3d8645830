/* The page of `fsnap report`, as bytes: report_page and report_page_end. */
	.section .rodata
	.globl report_page, report_page_end
report_page:
	.incbin "report.html"
report_page_end:
	.section .note.GNU-stack,"",@progbits
