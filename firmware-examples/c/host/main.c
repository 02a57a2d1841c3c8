/*
 * One prompt from a POSIX machine, as a device would send it: connect, subscribe, publish at QoS 1, wait for the
 * outcome within a deadline, print it.
 *
 *   ask HOST PORT SITE/GATEWAY DEVICE TEXT [SECONDS] [TASK]
 *
 * Exit status: 0 an answer, 1 none in time, 2 the gateway said why there is none, 3 connection or protocol, 64 usage.
 * Every wait ends at the same deadline.
 */
#include "print.h"
#include "tidegate.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#define KEEP_ALIVE_S 30
#define FRAME_BYTES_MAX 4096 /* told to the gateway as max_bytes, so that each frame fits the buffer */
#define PACKET_BYTES_MAX (FRAME_BYTES_MAX + 256)
#define SECONDS_MAX 3600 /* of waiting */

enum outcome { ANSWERED = 0, SILENT = 1, REFUSED = 2, BROKEN = 3, USAGE = 64 };

struct link {
    int fd;
    int64_t deadline; /* in milliseconds of the monotonic clock */
    int64_t ping_at;
    struct tg_reader reader;
    uint8_t in[PACKET_BYTES_MAX];
    uint8_t out[PACKET_BYTES_MAX];
};

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Waits until the socket is ready, at most until `until`. False: it is not. */
static bool ready(const struct link *link, short events, int64_t until)
{
    struct pollfd p = {link->fd, events, 0};
    int64_t left;
    int n;
    do {
        left = until - now_ms();
        n = poll(&p, 1, left > 0 ? (int)left : 0);
    } while (n < 0 && errno == EINTR);
    return n > 0;
}

static bool open_link(struct link *link, const char *host, const char *port)
{
    struct addrinfo want, *all, *a;
    int error = 0;
    socklen_t len = sizeof error;
    memset(&want, 0, sizeof want);
    want.ai_socktype = SOCK_STREAM;
    link->fd = -1;
    if (getaddrinfo(host, port, &want, &all) != 0) {
        return false;
    }
    for (a = all; a != NULL; a = a->ai_next) {
        link->fd = socket(a->ai_family, a->ai_socktype, a->ai_protocol);
        if (link->fd < 0) {
            continue;
        }
        fcntl(link->fd, F_SETFL, O_NONBLOCK);
        if (connect(link->fd, a->ai_addr, a->ai_addrlen) == 0
            || (errno == EINPROGRESS && ready(link, POLLOUT, link->deadline)
                && getsockopt(link->fd, SOL_SOCKET, SO_ERROR, &error, &len) == 0 && error == 0)) {
            break;
        }
        close(link->fd);
        link->fd = -1;
    }
    freeaddrinfo(all);
    return link->fd >= 0;
}

/* Sends what stands in `out`. `len` 0 means that it did not fit. */
static bool send_out(struct link *link, size_t len)
{
    size_t sent = 0;
    while (sent < len) {
        ssize_t n = send(link->fd, link->out + sent, len - sent, MSG_NOSIGNAL);
        if (n > 0) {
            sent += (size_t)n;
        } else if (!(n < 0 && (errno == EAGAIN || errno == EINTR)) || !ready(link, POLLOUT, link->deadline)) {
            return false;
        }
    }
    link->ping_at = now_ms() + KEEP_ALIVE_S * 500;
    return len > 0;
}

/* The next packet. TG_MORE: the deadline came first. TG_BAD: the connection is over, or what came is no MQTT. */
static enum tg_status next_packet(struct link *link, struct tg_packet *packet)
{
    for (;;) {
        enum tg_status status = tg_reader_next(&link->reader, packet);
        int64_t now = now_ms();
        size_t space;
        uint8_t *at;
        ssize_t n;
        if (status != TG_MORE || now >= link->deadline) {
            return status;
        }
        if (now >= link->ping_at && !send_out(link, tg_pingreq(link->out, sizeof link->out))) {
            return TG_BAD;
        }
        if (!ready(link, POLLIN, link->ping_at < link->deadline ? link->ping_at : link->deadline)) {
            continue;
        }
        at = tg_reader_space(&link->reader, &space);
        n = recv(link->fd, at, space, 0);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
            return TG_BAD;
        }
        tg_reader_received(&link->reader, n > 0 ? (size_t)n : 0);
    }
}

/* Sends `out` and waits for the packet that answers it. */
static bool exchange(struct link *link, size_t len, enum tg_type reply)
{
    struct tg_packet packet;
    if (!send_out(link, len)) {
        return false;
    }
    /* An outcome of an earlier prompt may come in between: without its PUBACK it stays with the gateway. */
    for (;;) {
        enum tg_status status = next_packet(link, &packet);
        if (status == TG_BAD || status == TG_MORE) {
            return false;
        }
        if (packet.type == reply) {
            return packet.code == 0 || (reply == TG_SUBACK && packet.code <= 1);
        }
    }
}

/* What an answer frame of our prompt means; false: wait on. */
static bool take_frame(const struct tg_packet *p, const char *id, enum outcome *outcome)
{
    struct tg_value kind, value;
    enum tg_status named = tg_find(p->payload, p->payload_len, "id", &value);
    if (tg_find(p->payload, p->payload_len, "kind", &kind) != TG_OK || kind.kind != TG_TEXT) {
        fprintf(stderr, "a message that is no frame\n");
        return false;
    }
    /* An error without an id means a prompt whose id could not be read: it can only be ours. */
    if (!(named == TG_OK && tg_is(&value, id)) && !(named == TG_NOT_FOUND && tg_is(&kind, "error"))) {
        fprintf(stderr, "a frame of another prompt\n");
        return false;
    }
    if (tg_is(&kind, "error")) {
        print_error(p->payload, p->payload_len);
        *outcome = REFUSED;
        return true;
    }
    if (!tg_is(&kind, "answer")) {
        fprintf(stderr, "%.*s\n", (int)kind.text_len, kind.text);
        return false;
    }
    if (tg_find(p->payload, p->payload_len, "provisional", &value) != TG_OK || value.number != 0) {
        fprintf(stderr, "provisional answer\n");
        return false;
    }
    *outcome = print_answer(p->payload, p->payload_len) ? ANSWERED : BROKEN;
    return true;
}

/* Acknowledges what comes until the outcome is there. */
static enum outcome wait_for_outcome(struct link *link, const char *id)
{
    struct tg_packet packet;
    enum outcome outcome = BROKEN;
    for (;;) {
        enum tg_status status = next_packet(link, &packet);
        bool over = false;
        if (status == TG_BAD || status == TG_MORE) {
            return status == TG_MORE ? SILENT : BROKEN;
        }
        if (packet.type != TG_PUBLISH) {
            continue;
        }
        if (status == TG_OK) {
            over = take_frame(&packet, id, &outcome);
        }
        /* Only now: acknowledged means taken, and the gateway keeps an outcome until it is. */
        if (packet.qos > 0 && !send_out(link, tg_puback(link->out, sizeof link->out, packet.packet_id))) {
            return BROKEN;
        }
        if (over) {
            return outcome;
        }
    }
}

/* A random boot number and a counter: no other prompt of this device has it. */
static void make_id(char *id, size_t len)
{
    unsigned char boot[6] = {0};
    FILE *random = fopen("/dev/urandom", "rb");
    if (random == NULL || fread(boot, 1, sizeof boot, random) != sizeof boot) {
        int64_t now = now_ms() ^ (int64_t)getpid() << 32;
        memcpy(boot, &now, sizeof boot);
    }
    if (random != NULL) {
        fclose(random);
    }
    snprintf(id, len, "%02x%02x%02x%02x%02x%02x-1", boot[0], boot[1], boot[2], boot[3], boot[4], boot[5]);
}

static enum outcome talk(struct link *link, char **argv, const char *task)
{
    char id[32], client[128], answers[256], prompts[256];
    uint8_t payload[FRAME_BYTES_MAX];
    int64_t left = link->deadline - now_ms();
    struct tg_prompt prompt = {id, task, argv[5], 0, FRAME_BYTES_MAX, left > 0 ? (uint32_t)left : 1, false, false};
    struct tg_connect with = {client, NULL, NULL, KEEP_ALIVE_S, true};
    struct tg_publish publish = {prompts, payload, 0, 2, false};
    make_id(id, sizeof id);
    snprintf(client, sizeof client, "%s-%s", argv[4], id);
    snprintf(answers, sizeof answers, "tg/v1/%s/answer/%s", argv[3], argv[4]);
    snprintf(prompts, sizeof prompts, "tg/v1/%s/prompt/%s", argv[3], argv[4]);
    publish.payload_len = tg_prompt(payload, sizeof payload, &prompt);
    if (publish.payload_len == 0) {
        fprintf(stderr, "the prompt does not fit %d bytes\n", FRAME_BYTES_MAX);
        return USAGE;
    }
    if (!exchange(link, tg_connect(link->out, sizeof link->out, &with), TG_CONNACK)) {
        fprintf(stderr, "the broker does not take the connection\n");
        return BROKEN;
    }
    if (!exchange(link, tg_subscribe(link->out, sizeof link->out, 1, answers), TG_SUBACK)) {
        fprintf(stderr, "the broker does not take the subscription to %s\n", answers);
        return BROKEN;
    }
    if (!send_out(link, tg_publish(link->out, sizeof link->out, &publish))) {
        return BROKEN;
    }
    return wait_for_outcome(link, id);
}

int main(int argc, char **argv)
{
    static struct link link;
    enum outcome outcome;
    long seconds = argc > 6 ? strtol(argv[6], NULL, 10) : 30;
    if (argc < 6 || argc > 8 || seconds < 1 || seconds > SECONDS_MAX) {
        fprintf(stderr, "ask HOST PORT SITE/GATEWAY DEVICE TEXT [SECONDS 1 to %d] [TASK]\n", SECONDS_MAX);
        return USAGE;
    }
    link.deadline = now_ms() + seconds * 1000;
    tg_reader_init(&link.reader, link.in, sizeof link.in);
    if (!open_link(&link, argv[1], argv[2])) {
        fprintf(stderr, "cannot connect to %s port %s\n", argv[1], argv[2]);
        return BROKEN;
    }
    outcome = talk(&link, argv, argc > 7 ? argv[7] : NULL);
    if (outcome == SILENT) {
        fprintf(stderr, "no outcome within %ld s\n", seconds);
    } else if (outcome != BROKEN) {
        send_out(&link, tg_disconnect(link.out, sizeof link.out));
    }
    close(link.fd);
    return (int)outcome;
}
