/* SMSC LAN9118 Ethernet, polled: one frame at a time through its FIFOs. */
#ifndef LAN9118_H
#define LAN9118_H

#include "lwip/netif.h"

/* For netif_add. */
err_t lan9118_init(struct netif *netif);
/* Gives all frames that have come to lwIP. */
void lan9118_poll(struct netif *netif);

#endif
