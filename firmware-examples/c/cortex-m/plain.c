#include "link.h"
#include "wire.h"

static struct tcp_link link;

bool wire_start(const char *server)
{
    (void)server;
    return true;
}

bool wire_open(const char *address, uint16_t port)
{
    return tcp_link_open(&link, address, port);
}

enum wire_state wire_step(void)
{
    if (tcp_link_over(&link)) {
        return WIRE_DOWN;
    }
    return link.state == LINK_OPEN ? WIRE_OPEN : WIRE_OPENING;
}

size_t wire_send(const uint8_t *bytes, size_t len)
{
    return tcp_link_send(&link, bytes, len);
}

size_t wire_receive(uint8_t *bytes, size_t cap)
{
    return tcp_link_receive(&link, bytes, cap);
}

void wire_close(void)
{
    tcp_link_close(&link);
}

const char *wire_why(void)
{
    return "the connection broke";
}

uint16_t wire_port(void)
{
    return 1883;
}
