#include "engine/awake.h"

#include <fcntl.h>
#include <stdint.h>
#include <unistd.h>

int awake_begin(void)
{
	int32_t most_us = 0; /* that waking one may take */
	int awake = open("/dev/cpu_dma_latency", O_WRONLY | O_CLOEXEC);
	if (awake >= 0 && write(awake, &most_us, sizeof(most_us)) != sizeof(most_us))
		awake_end(&awake);
	return awake;
}

void awake_end(int *awake)
{
	if (*awake >= 0)
		close(*awake);
	*awake = -1;
}
