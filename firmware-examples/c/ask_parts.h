/* What the files of an ask share; no caller needs it. */
#ifndef TIDEGATE_ASK_PARTS_H
#define TIDEGATE_ASK_PARTS_H

#include "ask.h"

/* PUBACK, PINGREQ and DISCONNECT that wait behind the prompt. */
#define SMALL_BYTES 8u
#define SUBSCRIBE_ID 1
#define PROMPT_ID 2

/* ---- ask_out.c: each adds a packet to what waits to be sent; false: it does not fit ---- */

/* tg/v1/SITE/GATEWAY + `what` + DEVICE; the length, 0: an identifier is too long. */
size_t tg_out_topic(char *out, const struct tg_settings *set, const char *what);
/* Where the next packet belongs. */
uint8_t *tg_out_room(struct tg_ask *a, size_t *cap);
bool tg_out_push(struct tg_ask *a, size_t len);
bool tg_out_connect(struct tg_ask *a);
bool tg_out_subscribe(struct tg_ask *a);
bool tg_out_prompt(struct tg_ask *a);

/* ---- ask_in.c ---- */

/* Takes packets as long as a PUBACK for the next one fits. */
void tg_in_drain(struct tg_ask *a);

/* ---- ask.c ---- */

void tg_state_enter(struct tg_ask *a, enum tg_state state);
uint32_t tg_state_passed(const struct tg_ask *a, uint32_t since);
/* The outcome, once: later ones change nothing. */
void tg_state_decide(struct tg_ask *a, enum tg_outcome outcome, const char *why);
/* The connection is of no use any more. */
void tg_state_give_up(struct tg_ask *a, const char *why);
void tg_state_rest(struct tg_ask *a, enum tg_state state, uint32_t pause_ms);

#endif
