#include "lan9118.h"

#include "lwip/etharp.h"
#include "lwip/pbuf.h"

#include <string.h>

#define BASE 0x40200000u
#define REGISTER(offset) (*(volatile uint32_t *)(BASE + (offset)))
#define RX_DATA REGISTER(0x00)
#define TX_DATA REGISTER(0x20)
#define RX_STATUS REGISTER(0x40)
#define RX_CONFIG REGISTER(0x6c)
#define TX_CONFIG REGISTER(0x70)
#define RX_USED REGISTER(0x7c)
#define TX_FREE REGISTER(0x80)
#define MAC_COMMAND REGISTER(0xa4)
#define MAC_VALUE REGISTER(0xa8)

#define MAC_BUSY 0x80000000u
#define MAC_READ 0x40000000u
#define MAC_CONTROL 1u
#define MAC_ADDRESS_HIGH 2u
#define MAC_ADDRESS_LOW 3u
#define MAC_ON 0x0000000cu /* transmitter and receiver */
#define TX_ON 2u
#define FIRST_AND_LAST 0x3000u
#define FRAME_BYTES_MAX 1518u
#define CHECKSUM_BYTES 4u

static uint32_t mac_read(uint32_t which)
{
    MAC_COMMAND = MAC_BUSY | MAC_READ | which;
    while ((MAC_COMMAND & MAC_BUSY) != 0) {
    }
    return MAC_VALUE;
}

static void mac_write(uint32_t which, uint32_t value)
{
    MAC_VALUE = value;
    MAC_COMMAND = MAC_BUSY | which;
    while ((MAC_COMMAND & MAC_BUSY) != 0) {
    }
}

static err_t send_frame(struct netif *netif, struct pbuf *p)
{
    static uint32_t words[(FRAME_BYTES_MAX + 3) / 4];
    uint32_t i, count = (p->tot_len + 3u) / 4;
    (void)netif;
    if (p->tot_len > FRAME_BYTES_MAX || (TX_FREE & 0xffffu) < p->tot_len + 16u) {
        return ERR_MEM;
    }
    words[count - 1] = 0;
    pbuf_copy_partial(p, words, p->tot_len, 0);
    TX_DATA = FIRST_AND_LAST | p->tot_len;
    TX_DATA = p->tot_len;
    for (i = 0; i < count; i++) {
        TX_DATA = words[i];
    }
    return ERR_OK;
}

err_t lan9118_init(struct netif *netif)
{
    uint32_t low = mac_read(MAC_ADDRESS_LOW), high = mac_read(MAC_ADDRESS_HIGH);
    memcpy(netif->hwaddr, &low, 4);
    memcpy(netif->hwaddr + 4, &high, 2);
    netif->hwaddr_len = 6;
    netif->mtu = 1500;
    netif->name[0] = 'e';
    netif->name[1] = 'n';
    netif->flags = NETIF_FLAG_BROADCAST | NETIF_FLAG_ETHARP | NETIF_FLAG_LINK_UP;
    netif->output = etharp_output;
    netif->linkoutput = send_frame;
    RX_CONFIG = 0;
    TX_CONFIG = TX_ON;
    mac_write(MAC_CONTROL, mac_read(MAC_CONTROL) | MAC_ON);
    return ERR_OK;
}

static void take_frame(struct netif *netif, uint32_t len)
{
    static uint32_t words[(FRAME_BYTES_MAX + 3) / 4];
    uint32_t i, count = (len + 3u) / 4;
    struct pbuf *p;
    for (i = 0; i < count; i++) {
        uint32_t word = RX_DATA;
        if (i < sizeof words / sizeof words[0]) {
            words[i] = word;
        }
    }
    if (len <= CHECKSUM_BYTES || len > FRAME_BYTES_MAX) {
        return;
    }
    p = pbuf_alloc(PBUF_RAW, (u16_t)(len - CHECKSUM_BYTES), PBUF_POOL);
    /* Without room the frame is lost, as on any wire; TCP sends it again. */
    if (p != NULL) {
        pbuf_take(p, words, (u16_t)(len - CHECKSUM_BYTES));
        if (netif->input(p, netif) != ERR_OK) {
            pbuf_free(p);
        }
    }
}

void lan9118_poll(struct netif *netif)
{
    while ((RX_USED >> 16 & 0xffu) > 0) {
        take_frame(netif, RX_STATUS >> 16 & 0x3fffu);
    }
}
