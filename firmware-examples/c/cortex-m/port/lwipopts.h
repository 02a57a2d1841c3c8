/* lwIP for one TCP connection, without an operating system. Sizes in bytes. */
#ifndef LWIPOPTS_H
#define LWIPOPTS_H

#define NO_SYS 1
#define SYS_LIGHTWEIGHT_PROT 0
#define LWIP_NETCONN 0
#define LWIP_SOCKET 0
#define LWIP_UDP 1
#define LWIP_DHCP 1
#define LWIP_DNS 0
#define DHCP_DOES_ARP_CHECK 0
#define LWIP_DHCP_DOES_ACD_CHECK 0
#define LWIP_IPV6 0
#define LWIP_NETIF_HOSTNAME 0
#define LWIP_STATS 0
#define MEM_ALIGNMENT 4
#define MEM_SIZE (8 * 1024)
#define MEMP_NUM_TCP_PCB 3
#define MEMP_NUM_TCP_SEG 16
#define PBUF_POOL_SIZE 10
#define TCP_MSS 1460
#define TCP_WND (4 * TCP_MSS)
#define TCP_SND_BUF (2 * TCP_MSS)
#define TCP_SND_QUEUELEN 12
#define TCP_KEEPIDLE_DEFAULT 30000

#endif
