/*
 * One prompt from a bare-metal board over Ethernet. The settings stand in ../shell/settings.h; under QEMU `-semihosting-config
 * arg=key=value` changes them. The exit status is the outcome, as everywhere in this folder; 65: no network.
 */
#include "board.h"
#include "settings.h"
#include "show.h"
#include "link.h"
#include "wire.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* DHCP asks more than once on a slow network. */
#define NETWORK_MS_MAX 60000u
/* What is left in the TCP connection goes out before the board is switched off; nobody there is no reason to stay. */
#define LINGER_MS_MAX 5000u
#define NO_NETWORK 65
#define ARGUMENT_BYTES_MAX 1024

static uint8_t in[DEVICE_IN_BYTES], out[DEVICE_OUT_BYTES];
static char arguments[ARGUMENT_BYTES_MAX];
static struct tg_ask ask;
static struct show show;

/* QEMU joins the arguments with spaces, so a space within one is written as `+`. */
static bool take_arguments(struct device_settings *set)
{
    size_t len = board_arguments(arguments, sizeof arguments - 1);
    char *at, *pair = arguments;
    bool first = true;
    arguments[len] = '\0';
    for (at = arguments;; at++) {
        bool last = *at == '\0';
        if (*at == '+') {
            *at = ' ';
        } else if (*at == ' ' || last) {
            *at = '\0';
            /* The first is the program's name. */
            if (!first && *pair != '\0' && !settings_take(set, pair)) {
                printf("not a setting: %s\n", pair);
                return false;
            }
            first = false;
            pair = at + 1;
        }
        if (last) {
            return true;
        }
    }
}

/* Moves bytes both ways. False: the connection is over. */
static bool move_bytes(void)
{
    size_t len, space;
    const uint8_t *bytes = tg_ask_out(&ask, &len);
    uint8_t *at;
    if (len > 0) {
        tg_ask_sent(&ask, wire_send(bytes, len), board_now_ms());
    }
    at = tg_ask_space(&ask, &space);
    len = space > 0 ? wire_receive(at, space) : 0;
    tg_ask_received(&ask, len, board_now_ms());
    return len > 0 || wire_step() != WIRE_DOWN;
}

static void step(const struct device_settings *set)
{
    static bool opening;
    static uint32_t since;
    enum wire_state state;
    if (ask.wants == TG_WANTS_LINK && !opening) {
        since = board_now_ms();
        opening = wire_open(set->host, set->port != NULL ? (uint16_t)strtoul(set->port, NULL, 10) : wire_port());
        if (!opening) {
            tg_ask_closed(&ask, "no connection", board_now_ms());
        }
    } else if (ask.wants == TG_WANTS_LINK) {
        state = wire_step();
        if (state == WIRE_OPEN) {
            opening = false;
            tg_ask_opened(&ask, board_now_ms());
        } else if (state == WIRE_DOWN || board_now_ms() - since >= TG_STEP_MS) {
            opening = false;
            wire_close();
            tg_ask_closed(&ask, wire_why(), board_now_ms());
        }
    } else if (ask.wants == TG_WANTS_SHUT || (ask.wants == TG_WANTS_IO && !move_bytes())) {
        wire_close();
        tg_ask_closed(&ask, wire_why(), board_now_ms());
    }
    tg_ask_tick(&ask, board_now_ms());
}

static bool wait_for_network(void)
{
    uint32_t began = board_now_ms();
    network_start();
    while (!network_ready()) {
        if (board_now_ms() - began >= NETWORK_MS_MAX) {
            printf("end %d no address from DHCP\n", NO_NETWORK);
            return false;
        }
        network_poll();
        board_idle();
    }
    return true;
}

static void linger(void)
{
    uint32_t began = board_now_ms();
    while (!network_quiet() && board_now_ms() - began < LINGER_MS_MAX) {
        network_poll();
        board_idle();
    }
}

int main(void)
{
    struct device_settings set;
    struct tg_buffers buffers = {in, 0, out, sizeof out};
    char id[TG_ID_BYTES];
    uint32_t boot = 0;
    settings_default(&set);
    if (!take_arguments(&set)) {
        return TG_USAGE;
    }
    if (!board_random(&boot, sizeof boot)) {
        printf("end %d no random numbers\n", TG_USAGE);
        return TG_USAGE;
    }
    tg_make_id(id, boot, 1);
    set.id = set.id != NULL ? set.id : id;
    buffers.in_cap = set.in_bytes;
    if (!tg_ask_init(&ask, &set.ask, set.id, &buffers) || !wire_start(set.server)) {
        printf("end %d the prompt does not fit, or TLS cannot start\n", TG_USAGE);
        return TG_USAGE;
    }
    if (!wait_for_network()) {
        return NO_NETWORK;
    }
    printf("id %s\n", set.id);
    show_init(&show, set.ask.bare);
    tg_ask_begin(&ask, show_frame, &show, board_now_ms());
    while (ask.wants != TG_WANTS_END) {
        network_poll();
        step(&set);
        board_idle();
    }
    linger();
    show_end(&ask);
    return (int)ask.outcome;
}
