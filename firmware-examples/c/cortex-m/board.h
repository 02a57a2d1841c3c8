/*
 * The board: an Arm Cortex-M3 as QEMU's mps2-an385 has it. Start-up, milliseconds, console, random numbers, Ethernet.
 * What a real board does another way stands in board.c and lan9118.c, nowhere else.
 */
#ifndef BOARD_H
#define BOARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Milliseconds since the start, to 10; wraps after 49 days. */
uint32_t board_now_ms(void);
/* Waits for the next tick, 2 ms at most. */
void board_idle(void);
/* The emulator's `/dev/urandom`. A real board has a generator of its own and must use it: TLS is worth nothing without. */
bool board_random(void *out, size_t len);
/* What the board was started with, by QEMU's `-semihosting-config arg=…`. A real board has its settings in flash. */
size_t board_arguments(char *out, size_t cap);
/* Ends the emulation with this exit status. A real board would reset or sleep. */
void board_exit(int status) __attribute__((noreturn));

#endif
