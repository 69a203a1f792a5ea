package main

/*
#include <stdlib.h>
#include <sys/prctl.h>

// Go's runtime has a thread that sleeps 20 us at a time while anything goes on,
// and quire, which wakes for each page and each answer, paid a fifth of its
// processor time for that. With slack the kernel makes it a millisecond. A timer
// may be that much late, which is nothing beside a page; in a render worker,
// whose only timer is the one that ends a page after half a minute, it may be more.
//
// Threads have the slack of the one that started them, and programs keep it, so
// it is set before Go's runtime starts, and the guard, which starts the server,
// has the system's default again.
__attribute__((constructor)) static void timer_slack(void)
{
	unsigned long slack = 1000000; // ns; see PR_SET_TIMERSLACK(2const)
	if (getenv("QUIRE_GUARD_FD"))
		slack = 50000;
	else if (getenv("QUIRE_RENDER_WORKER"))
		slack = 10000000;
	prctl(PR_SET_TIMERSLACK, slack, 0, 0, 0);
}
*/
import "C"
