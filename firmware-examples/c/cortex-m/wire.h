/* The connection to the gateway: plain.c or tls.c, whichever is linked. */
#ifndef WIRE_H
#define WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum wire_state { WIRE_OPENING, WIRE_OPEN, WIRE_DOWN };

/* Once, before anything else. `server` is the name that the gateway's certificate must have. False: no TLS possible. */
bool wire_start(const char *server);
bool wire_open(const char *address, uint16_t port);
/* To be called often: TLS shakes hands in here. */
enum wire_state wire_step(void);
size_t wire_send(const uint8_t *bytes, size_t len);
size_t wire_receive(uint8_t *bytes, size_t cap);
void wire_close(void);
/* Why it went down, in words. */
const char *wire_why(void);
/* 1883 or 8883 */
uint16_t wire_port(void);

#endif
