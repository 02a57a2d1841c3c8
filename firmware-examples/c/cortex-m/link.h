/* One TCP connection over lwIP's raw API, as a pair of byte queues. */
#ifndef LINK_H
#define LINK_H

#include "lwip/tcp.h"

#include <stdbool.h>

enum link_state { LINK_CLOSED, LINK_OPENING, LINK_OPEN };

struct tcp_link {
    enum link_state state;
    struct tcp_pcb *pcb;
    struct pbuf *in;          /* received and not yet taken: at most TCP_WND */
    bool over;                /* the peer says no more */
};

/* Ethernet and DHCP. */
void network_start(void);
/* Frames, timers. To be called as often as possible. */
void network_poll(void);
bool network_ready(void);
/* Whether no connection has anything left to say. */
bool network_quiet(void);

/* Begins to connect. False: no room for another connection, or no address. */
bool tcp_link_open(struct tcp_link *link, const char *address, uint16_t port);
/* How many bytes went. */
size_t tcp_link_send(struct tcp_link *link, const uint8_t *bytes, size_t len);
size_t tcp_link_receive(struct tcp_link *link, uint8_t *bytes, size_t cap);
/* Nothing more will come. */
bool tcp_link_over(const struct tcp_link *link);
void tcp_link_close(struct tcp_link *link);

#endif
