/*
 * An Arduino Mega 2560 in simavr with a serial modem at UART 1:
 *
 *   mega-board mega.elf HOST PORT key=value …
 *
 * The settings are typed at the console (UART 0), what the board prints goes to stdout, and the status of its line
 * `end STATUS …` is the exit status. The modem knows HOST and PORT alone: the board can reach nothing else. Time on the
 * board goes as on this machine, so that its deadlines are real.
 *
 * Links against libsimavr, which is GPL-3: this file is used for tests only and is no part of any image.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "avr_ioport.h"
#include "avr_uart.h"
#include "sim_avr.h"
#include "sim_elf.h"

#define HZ 16000000u
/* How far the board may be ahead of this machine's clock. */
#define SLICE_CYCLES (HZ / 1000)
#define TYPED_BYTES_MAX 2048
#define LINE_BYTES_MAX 1024

struct board {
    avr_t *avr;
    avr_irq_t *console, *modem, *carrier;
    bool console_ready, modem_ready, hold;
    char typed[TYPED_BYTES_MAX];
    size_t typed_len, typed_at;
    char line[LINE_BYTES_MAX];
    size_t line_len;
    struct sockaddr_in gateway;
    int tcp; /* -1: no connection */
    int status;
};

static void set_carrier(struct board *b, bool on)
{
    avr_raise_irq(b->carrier, on);
}

static void printed(avr_irq_t *irq, uint32_t value, void *with)
{
    struct board *b = with;
    (void)irq;
    putchar((int)value);
    if (value != '\n') {
        if (b->line_len < sizeof b->line - 1) {
            b->line[b->line_len++] = (char)value;
        }
        return;
    }
    fflush(stdout);
    b->line[b->line_len] = '\0';
    b->line_len = 0;
    if (strncmp(b->line, "end ", 4) == 0) {
        b->status = atoi(b->line + 4);
    }
}

static void hang_up(struct board *b)
{
    if (b->tcp >= 0) {
        close(b->tcp);
    }
    b->tcp = -1;
    set_carrier(b, false);
}

static void sent(avr_irq_t *irq, uint32_t value, void *with)
{
    struct board *b = with;
    uint8_t byte = (uint8_t)value;
    (void)irq;
    if (b->tcp >= 0 && send(b->tcp, &byte, 1, MSG_NOSIGNAL) != 1) {
        hang_up(b);
    }
}

/* DTR: asks for the connection, or ends it. */
static void dtr(avr_irq_t *irq, uint32_t value, void *with)
{
    struct board *b = with;
    int one = 1;
    (void)irq;
    if (value == 0) {
        hang_up(b);
        return;
    }
    b->tcp = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(b->tcp, (struct sockaddr *)&b->gateway, sizeof b->gateway) != 0) {
        hang_up(b);
        return;
    }
    setsockopt(b->tcp, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    set_carrier(b, true);
}

static void rts(avr_irq_t *irq, uint32_t value, void *with)
{
    (void)irq;
    ((struct board *)with)->hold = value != 0;
}

static void console_on(avr_irq_t *irq, uint32_t value, void *with)
{
    (void)irq, (void)value;
    ((struct board *)with)->console_ready = true;
}

static void console_off(avr_irq_t *irq, uint32_t value, void *with)
{
    (void)irq, (void)value;
    ((struct board *)with)->console_ready = false;
}

static void modem_on(avr_irq_t *irq, uint32_t value, void *with)
{
    (void)irq, (void)value;
    ((struct board *)with)->modem_ready = true;
}

static void modem_off(avr_irq_t *irq, uint32_t value, void *with)
{
    (void)irq, (void)value;
    ((struct board *)with)->modem_ready = false;
}

/* UART, its two directions, and when it takes more. */
static avr_irq_t *join_uart(struct board *b, char name, avr_irq_notify_t out, avr_irq_notify_t on, avr_irq_notify_t off)
{
    uint32_t flags = 0;
    avr_ioctl(b->avr, AVR_IOCTL_UART_GET_FLAGS(name), &flags);
    flags &= ~(uint32_t)(AVR_UART_FLAG_STDIO | AVR_UART_FLAG_POLL_SLEEP);
    avr_ioctl(b->avr, AVR_IOCTL_UART_SET_FLAGS(name), &flags);
    avr_irq_register_notify(avr_io_getirq(b->avr, AVR_IOCTL_UART_GETIRQ(name), UART_IRQ_OUTPUT), out, b);
    avr_irq_register_notify(avr_io_getirq(b->avr, AVR_IOCTL_UART_GETIRQ(name), UART_IRQ_OUT_XON), on, b);
    avr_irq_register_notify(avr_io_getirq(b->avr, AVR_IOCTL_UART_GETIRQ(name), UART_IRQ_OUT_XOFF), off, b);
    return avr_io_getirq(b->avr, AVR_IOCTL_UART_GETIRQ(name), UART_IRQ_INPUT);
}

static void feed(struct board *b)
{
    uint8_t byte;
    ssize_t n;
    if (b->console_ready && b->typed_at < b->typed_len) {
        avr_raise_irq(b->console, (uint8_t)b->typed[b->typed_at++]);
    }
    if (!b->modem_ready || b->hold || b->tcp < 0) {
        return;
    }
    n = recv(b->tcp, &byte, 1, MSG_DONTWAIT);
    if (n == 1) {
        avr_raise_irq(b->modem, byte);
    } else if (n == 0 || (errno != EAGAIN && errno != EWOULDBLOCK)) {
        hang_up(b);
    }
}

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void run(struct board *b)
{
    uint64_t began = now_ns();
    uint64_t next = SLICE_CYCLES, byte_at = 0;
    while (b->status < 0) {
        int state = avr_run(b->avr);
        if (state == cpu_Done || state == cpu_Crashed) {
            b->status = 70;
        }
        /* About once per bit: often enough for both lines. */
        if (b->avr->cycle >= byte_at) {
            feed(b);
            byte_at = b->avr->cycle + 256;
        }
        if (b->avr->cycle >= next) {
            uint64_t due = began + b->avr->cycle * 1000000000u / HZ, now = now_ns();
            if (due > now) {
                struct timespec wait = {0, (long)(due - now)};
                nanosleep(&wait, NULL);
            } else if (now - due > 20000000u) {
                /* This machine was busy; the board's clock does not race after it. */
                began += now - due;
            }
            next = b->avr->cycle + SLICE_CYCLES;
        }
    }
}

static void type(struct board *b, const char *text)
{
    size_t len = strlen(text);
    if (len + 1 > sizeof b->typed - b->typed_len) {
        fprintf(stderr, "too many settings\n");
        exit(64);
    }
    memcpy(b->typed + b->typed_len, text, len);
    b->typed[b->typed_len + len] = '\n';
    b->typed_len += len + 1;
}

int main(int argc, char **argv)
{
    static struct board b;
    elf_firmware_t firmware = {0};
    int i;
    if (argc < 4 || elf_read_firmware(argv[1], &firmware) != 0) {
        fprintf(stderr, "mega-board mega.elf HOST PORT [key=value …]\n");
        return 64;
    }
    b.gateway.sin_family = AF_INET;
    b.gateway.sin_port = htons((uint16_t)atoi(argv[3]));
    if (inet_pton(AF_INET, argv[2], &b.gateway.sin_addr) != 1) {
        fprintf(stderr, "HOST is an IPv4 address\n");
        return 64;
    }
    for (i = 4; i < argc; i++) {
        type(&b, argv[i]);
    }
    type(&b, "go");
    b.tcp = -1;
    b.status = -1;
    b.avr = avr_make_mcu_by_name("atmega2560");
    avr_init(b.avr);
    b.avr->frequency = HZ;
    b.avr->log = 0;
    avr_load_firmware(b.avr, &firmware);
    b.avr->frequency = HZ;
    b.console = join_uart(&b, '0', printed, console_on, console_off);
    b.modem = join_uart(&b, '1', sent, modem_on, modem_off);
    avr_irq_register_notify(avr_io_getirq(b.avr, AVR_IOCTL_IOPORT_GETIRQ('A'), 0), dtr, &b);
    b.carrier = avr_io_getirq(b.avr, AVR_IOCTL_IOPORT_GETIRQ('A'), 1);
    avr_irq_register_notify(avr_io_getirq(b.avr, AVR_IOCTL_IOPORT_GETIRQ('A'), 2), rts, &b);
    run(&b);
    return b.status;
}
