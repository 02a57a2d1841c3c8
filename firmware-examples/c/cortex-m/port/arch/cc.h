/* lwIP's view of compiler and board. */
#ifndef ARCH_CC_H
#define ARCH_CC_H

#include <stdint.h>
#include <stdio.h>

#define LWIP_NO_UNISTD_H 1
#define LWIP_PLATFORM_DIAG(x)
#define LWIP_PLATFORM_ASSERT(x) board_assert()
void board_exit(int status) __attribute__((noreturn));
#define board_assert() board_exit(71)

uint32_t board_lwip_random(void);
#define LWIP_RAND() board_lwip_random()

#endif
