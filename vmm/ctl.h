/* SPDX-License-Identifier: MIT */
/* vmm ctl: the client of the control socket. */
#ifndef VMM_CTL_H
#define VMM_CTL_H

/* argv[0] is "ctl". Returns the exit status. */
int ctl_main(int argc, char **argv);

#endif
