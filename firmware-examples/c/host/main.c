/*
 * One prompt from a POSIX machine, as a device would send it.
 *
 *   ask host=127.0.0.1 port=1883 gateway=site/gateway device=local-1 text="turn off the lights" …
 *
 * Keys: see shell/settings.c. Exit status: 0 an answer, 1 none in time, 2 the gateway said why there is none,
 * 3 no connection, 64 usage.
 */
#include "settings.h"
#include "show.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#define TICK_MS 50

static uint32_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint32_t)((uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000);
}

static bool ready(int fd, short events, int wait_ms)
{
    struct pollfd p = {fd, events, 0};
    return poll(&p, 1, wait_ms) > 0;
}

/* -1: there is no connection. */
static int open_link(const struct device_settings *set)
{
    struct addrinfo want, *all, *a;
    int fd = -1, error = 0, one = 1;
    socklen_t len = sizeof error;
    memset(&want, 0, sizeof want);
    want.ai_socktype = SOCK_STREAM;
    if (getaddrinfo(set->host, set->port, &want, &all) != 0) {
        return -1;
    }
    for (a = all; a != NULL && fd < 0; a = a->ai_next) {
        fd = socket(a->ai_family, a->ai_socktype, a->ai_protocol);
        if (fd < 0) {
            continue;
        }
        fcntl(fd, F_SETFL, O_NONBLOCK);
        if (connect(fd, a->ai_addr, a->ai_addrlen) != 0
            && !(errno == EINPROGRESS && ready(fd, POLLOUT, (int)TG_STEP_MS)
                 && getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) == 0 && error == 0)) {
            close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(all);
    if (fd >= 0) {
        /* A PUBACK that waits for the peer's acknowledgement of what went before it may be lost when we leave. */
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    }
    return fd;
}

/* Moves bytes both ways. False: the connection is over. */
static bool move_bytes(struct tg_ask *ask, int fd)
{
    size_t out_len, space;
    const uint8_t *out = tg_ask_out(ask, &out_len);
    uint8_t *in;
    ssize_t n;
    if (out_len > 0) {
        n = send(fd, out, out_len, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN && errno != EINTR) {
            return false;
        }
        tg_ask_sent(ask, n > 0 ? (size_t)n : 0, now_ms());
    }
    tg_ask_out(ask, &out_len);
    if (!ready(fd, out_len > 0 ? POLLIN | POLLOUT : POLLIN, TICK_MS)) {
        return true;
    }
    in = tg_ask_space(ask, &space);
    n = space > 0 ? recv(fd, in, space, 0) : -1;
    if (space > 0 && (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))) {
        return false;
    }
    tg_ask_received(ask, n > 0 ? (size_t)n : 0, now_ms());
    return true;
}

static void run(struct tg_ask *ask, const struct device_settings *set)
{
    const struct timespec tick = {0, TICK_MS * 1000000};
    int fd = -1;
    while (ask->wants != TG_WANTS_END) {
        if (ask->wants == TG_WANTS_LINK) {
            fd = open_link(set);
            if (fd >= 0) {
                tg_ask_opened(ask, now_ms());
            } else {
                tg_ask_closed(ask, "no connection", now_ms());
            }
        } else if (ask->wants == TG_WANTS_TIME) {
            nanosleep(&tick, NULL);
        } else if (ask->wants == TG_WANTS_SHUT || !move_bytes(ask, fd)) {
            close(fd);
            tg_ask_closed(ask, "the connection broke", now_ms());
        }
        tg_ask_tick(ask, now_ms());
    }
}

static uint32_t boot_number(void)
{
    uint32_t boot = 0;
    FILE *random = fopen("/dev/urandom", "rb");
    if (random == NULL || fread(&boot, sizeof boot, 1, random) != 1) {
        boot = now_ms() ^ (uint32_t)getpid() << 16;
    }
    if (random != NULL) {
        fclose(random);
    }
    return boot;
}

int main(int argc, char **argv)
{
    static uint8_t in[DEVICE_IN_BYTES], out[DEVICE_OUT_BYTES];
    static struct tg_ask ask;
    static struct show show;
    struct device_settings set;
    struct tg_buffers buffers = {in, 0, out, sizeof out};
    char id[TG_ID_BYTES];
    int i;
    settings_default(&set);
    for (i = 1; i < argc; i++) {
        if (!settings_take(&set, argv[i])) {
            fprintf(stderr, "not a setting: %s\n", argv[i]);
            return TG_USAGE;
        }
    }
    buffers.in_cap = set.in_bytes;
    tg_make_id(id, boot_number(), 1);
    set.id = set.id != NULL ? set.id : id;
    if (argc < 2 || set.port == NULL || !tg_ask_init(&ask, &set.ask, set.id, &buffers)) {
        fprintf(stderr, "ask port=… [key=value …]: port is needed, and the prompt must fit %d bytes\n", DEVICE_OUT_BYTES);
        return TG_USAGE;
    }
    printf("id %s\n", set.id);
    fflush(stdout);
    show_init(&show, set.ask.bare);
    tg_ask_begin(&ask, show_frame, &show, now_ms());
    run(&ask, &set);
    show_end(&ask);
    return (int)ask.outcome;
}
