#include "link.h"

#include "board.h"
#include "lan9118.h"
#include "lwip/dhcp.h"
#include "lwip/init.h"
#include "lwip/priv/tcp_priv.h"
#include "lwip/timeouts.h"
#include "netif/ethernet.h"

static struct netif ethernet;

u32_t sys_now(void)
{
    return board_now_ms();
}

uint32_t board_lwip_random(void)
{
    uint32_t number = 0;
    board_random(&number, sizeof number);
    return number;
}

void network_start(void)
{
    lwip_init();
    netif_add_noaddr(&ethernet, NULL, lan9118_init, ethernet_input);
    netif_set_default(&ethernet);
    netif_set_up(&ethernet);
    dhcp_start(&ethernet);
}

void network_poll(void)
{
    lan9118_poll(&ethernet);
    sys_check_timeouts();
}

bool network_ready(void)
{
    return dhcp_supplied_address(&ethernet) != 0;
}

/* A connection that was closed stays here until the peer has all of it. */
bool network_quiet(void)
{
    return tcp_active_pcbs == NULL;
}

static err_t on_connected(void *with, struct tcp_pcb *pcb, err_t error)
{
    struct tcp_link *link = with;
    (void)pcb;
    (void)error;
    link->state = LINK_OPEN;
    return ERR_OK;
}

static err_t on_received(void *with, struct tcp_pcb *pcb, struct pbuf *p, err_t error)
{
    struct tcp_link *link = with;
    (void)pcb;
    (void)error;
    if (p == NULL) {
        link->over = true;
    } else if (link->in == NULL) {
        link->in = p;
    } else {
        pbuf_cat(link->in, p);
    }
    return ERR_OK;
}

/* lwIP has freed the connection already. */
static void on_error(void *with, err_t error)
{
    struct tcp_link *link = with;
    (void)error;
    link->pcb = NULL;
    link->over = true;
}

bool tcp_link_open(struct tcp_link *link, const char *address, uint16_t port)
{
    ip_addr_t to;
    link->state = LINK_OPENING;
    link->in = NULL;
    link->over = false;
    link->pcb = ipaddr_aton(address, &to) ? tcp_new() : NULL;
    if (link->pcb == NULL) {
        link->state = LINK_CLOSED;
        return false;
    }
    /* A PUBACK must not wait for the peer's acknowledgement of what went before it. */
    tcp_nagle_disable(link->pcb);
    tcp_arg(link->pcb, link);
    tcp_recv(link->pcb, on_received);
    tcp_err(link->pcb, on_error);
    if (tcp_connect(link->pcb, &to, port, on_connected) != ERR_OK) {
        tcp_link_close(link);
        return false;
    }
    return true;
}

size_t tcp_link_send(struct tcp_link *link, const uint8_t *bytes, size_t len)
{
    size_t fits;
    if (link->state != LINK_OPEN || link->pcb == NULL) {
        return 0;
    }
    fits = tcp_sndbuf(link->pcb);
    fits = len < fits ? len : fits;
    if (fits == 0 || tcp_write(link->pcb, bytes, (u16_t)fits, TCP_WRITE_FLAG_COPY) != ERR_OK) {
        return 0;
    }
    tcp_output(link->pcb);
    return fits;
}

size_t tcp_link_receive(struct tcp_link *link, uint8_t *bytes, size_t cap)
{
    size_t len;
    if (link->in == NULL) {
        return 0;
    }
    len = pbuf_copy_partial(link->in, bytes, (u16_t)(cap < 0xffff ? cap : 0xffff), 0);
    link->in = pbuf_free_header(link->in, (u16_t)len);
    if (link->pcb != NULL) {
        tcp_recved(link->pcb, (u16_t)len);
    }
    return len;
}

bool tcp_link_over(const struct tcp_link *link)
{
    return link->in == NULL && (link->over || link->pcb == NULL);
}

void tcp_link_close(struct tcp_link *link)
{
    if (link->in != NULL) {
        pbuf_free(link->in);
        link->in = NULL;
    }
    if (link->pcb != NULL) {
        tcp_arg(link->pcb, NULL);
        tcp_recv(link->pcb, NULL);
        tcp_err(link->pcb, NULL);
        if (tcp_close(link->pcb) != ERR_OK) {
            tcp_abort(link->pcb);
        }
        link->pcb = NULL;
    }
    link->state = LINK_CLOSED;
}
