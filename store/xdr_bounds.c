/*
 * xdr_bounds.c - lists of an image cannot say that they are longer than what is left of their record.
 *
 * xdr_array(3) and its like allocate as many elements as a length says, up to the bound that image.x gives, before the
 * first of them is decoded: 60 bytes could ask for gigabytes. What rpcgen made of image.x calls these instead
 * (tools/cmake/ImageSchema.cmake). An element takes four bytes at least, a byte of a string one.
 */
#include <rpc/rpc.h>

bool_t bounded_xdr_array(XDR *xdr, caddr_t *elements, u_int *n, u_int most, u_int size, xdrproc_t element);
bool_t bounded_xdr_bytes(XDR *xdr, char **bytes, u_int *n, u_int most);
bool_t bounded_xdr_string(XDR *xdr, char **text, u_int most);

/* Whether what comes next is a length that can be true; nothing is consumed. */
static bool_t is_possible(XDR *xdr, u_int least)
{
	u_int at, n;
	if (xdr->x_op != XDR_DECODE) /* whoever only frees has no stream */
		return TRUE;
	at = xdr_getpos(xdr);
	if (!xdr_u_int(xdr, &n) || n > xdr->x_handy / least)
		return FALSE;
	return xdr_setpos(xdr, at);
}

bool_t bounded_xdr_array(XDR *xdr, caddr_t *elements, u_int *n, u_int most, u_int size, xdrproc_t element)
{
	return is_possible(xdr, BYTES_PER_XDR_UNIT) && xdr_array(xdr, elements, n, most, size, element);
}

bool_t bounded_xdr_bytes(XDR *xdr, char **bytes, u_int *n, u_int most)
{
	return is_possible(xdr, 1) && xdr_bytes(xdr, bytes, n, most);
}

bool_t bounded_xdr_string(XDR *xdr, char **text, u_int most)
{
	return is_possible(xdr, 1) && xdr_string(xdr, text, most);
}
