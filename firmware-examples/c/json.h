/*
 * JSON (RFC 8259) to CBOR and back, for devices that would rather speak JSON on the wire: a prompt of tg_prompt becomes
 * JSON, an answer in JSON becomes CBOR and tg_find looks through it. Needs strtod and snprintf for numbers with a point;
 * nothing else of the library needs this file.
 *
 * Invariants: as in tidegate.h; nesting deeper than TG_DEPTH_MAX, text after the end, and what is no JSON give 0.
 */
#ifndef TIDEGATE_JSON_H
#define TIDEGATE_JSON_H

#include "tidegate.h"

/* The bytes written. Objects and arrays get no length in front: what they hold is not known before it is read. */
size_t tg_json_to_cbor(uint8_t *out, size_t cap, const char *json, size_t len);
/* The bytes written. Keys must be texts; bytes (major type 2) have no form in JSON; what is no number becomes null. */
size_t tg_cbor_to_json(char *out, size_t cap, const uint8_t *cbor, size_t len);

#endif
