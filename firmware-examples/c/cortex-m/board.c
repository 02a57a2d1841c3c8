#include "board.h"

#include <errno.h>
#include <sys/stat.h>

#define REGISTER(address) (*(volatile uint32_t *)(address))
/* CMSDK UART 0 */
#define UART_DATA REGISTER(0x40004000u)
#define UART_STATE REGISTER(0x40004004u)
#define UART_CONTROL REGISTER(0x40004008u)
#define UART_DIVIDER REGISTER(0x40004010u)
/* Arm v7-M */
#define SYSTICK_CONTROL REGISTER(0xe000e010u)
#define SYSTICK_RELOAD REGISTER(0xe000e014u)
#define SYSTICK_VALUE REGISTER(0xe000e018u)
#define CLOCK_HZ 25000000u
#define TICKS_HZ 500u
/* The FPGA's counter of hundredths of a second: it goes on while interrupts wait, which counting them would not. */
#define HUNDREDTHS REGISTER(0x40028014u)

/* Arm semihosting 2.0 */
#define SYS_OPEN 0x01u
#define SYS_CLOSE 0x02u
#define SYS_READ 0x06u
#define SYS_GET_CMDLINE 0x15u
#define SYS_EXIT_EXTENDED 0x20u
#define APPLICATION_EXIT 0x20026u

extern uint32_t board_data_start, board_data_end, board_data_flash, board_bss_start, board_bss_end;
extern uint8_t board_heap_start, board_heap_end;
extern uint32_t board_stack_end;

int main(void);
void board_reset(void);
static void fault(void);
static void tick(void);

typedef void (*handler)(void);

__attribute__((section(".vectors"), used)) static const handler VECTORS[16] = {
    (handler)(uintptr_t)&board_stack_end, board_reset, fault, fault, fault, fault, fault, 0, 0, 0, 0, fault, fault, 0,
    fault, tick,
};

static uint32_t semihost(uint32_t operation, const void *argument)
{
    register uint32_t r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

void board_exit(int status)
{
    uint32_t block[2];
    block[0] = APPLICATION_EXIT;
    block[1] = (uint32_t)status;
    semihost(SYS_EXIT_EXTENDED, block);
    for (;;) {
    }
}

static void fault(void)
{
    board_exit(70);
}

/* Only wakes the processor. */
static void tick(void)
{
}

void board_reset(void)
{
    uint32_t *to;
    const uint32_t *from = &board_data_flash;
    for (to = &board_data_start; to < &board_data_end;) {
        *to++ = *from++;
    }
    for (to = &board_bss_start; to < &board_bss_end;) {
        *to++ = 0;
    }
    UART_DIVIDER = 16;
    UART_CONTROL = 1;
    SYSTICK_RELOAD = CLOCK_HZ / TICKS_HZ - 1;
    SYSTICK_VALUE = 0;
    SYSTICK_CONTROL = 7;
    board_exit(main());
}

uint32_t board_now_ms(void)
{
    return HUNDREDTHS * 10u;
}

void board_idle(void)
{
    __asm__ volatile("wfi");
}

bool board_random(void *out, size_t len)
{
    static const char NAME[] = "/dev/urandom";
    uint32_t open[3], file, read[3], left;
    open[0] = (uint32_t)(uintptr_t)NAME;
    open[1] = 1; /* rb */
    open[2] = sizeof NAME - 1;
    file = semihost(SYS_OPEN, open);
    if (file == UINT32_MAX) {
        return false;
    }
    read[0] = file;
    read[1] = (uint32_t)(uintptr_t)out;
    read[2] = len;
    left = semihost(SYS_READ, read);
    semihost(SYS_CLOSE, &file);
    return left == 0;
}

size_t board_arguments(char *out, size_t cap)
{
    uint32_t block[2];
    block[0] = (uint32_t)(uintptr_t)out;
    block[1] = cap;
    return semihost(SYS_GET_CMDLINE, block) == 0 ? block[1] : 0;
}

/* ---- what the C library asks for ---- */

int _write(int file, const char *bytes, int len);
void *_sbrk(ptrdiff_t more);
int _close(int file);
int _fstat(int file, struct stat *status);
int _isatty(int file);
int _lseek(int file, int offset, int from);
int _read(int file, char *bytes, int len);
void _exit(int status);
int _kill(int process, int signal);
int _getpid(void);

int _write(int file, const char *bytes, int len)
{
    int i;
    (void)file;
    for (i = 0; i < len; i++) {
        while ((UART_STATE & 1u) != 0) {
        }
        UART_DATA = (uint8_t)bytes[i];
    }
    return len;
}

void *_sbrk(ptrdiff_t more)
{
    static uint8_t *end = &board_heap_start;
    uint8_t *at = end;
    if (more > &board_heap_end - end) {
        errno = ENOMEM;
        return (void *)-1;
    }
    end += more;
    return at;
}

int _close(int file) { (void)file; return -1; }
int _fstat(int file, struct stat *status) { (void)file; status->st_mode = S_IFCHR; return 0; }
int _isatty(int file) { (void)file; return 1; }
int _lseek(int file, int offset, int from) { (void)file; (void)offset; (void)from; return 0; }
int _read(int file, char *bytes, int len) { (void)file; (void)bytes; (void)len; return 0; }
void _exit(int status) { board_exit(status); }
int _kill(int process, int signal) { (void)process; (void)signal; return -1; }
int _getpid(void) { return 1; }
