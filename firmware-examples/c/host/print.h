/* Shows an outcome to a person. */
#ifndef PRINT_H
#define PRINT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The answer's text or JSON on stdout, how it was made on stderr. False: it is no answer. */
bool print_answer(const uint8_t *frame, size_t len);
/* Code and message on stderr. */
void print_error(const uint8_t *frame, size_t len);

#endif
