/* Copy rows that lie all over a large matrix, nearly at the speed of one large memcpy.

   A core waits for few lines of memory at a time on their way into its first cache, and for twice
   as many on their way into its second. So while a row is copied, a row further on is fetched into
   the second, line by line: processors do not fetch ahead across the end of a page, and in permuted
   order each row is a new one. And a plain store fetches the line that it is about to overwrite.
   Stores past the caches do not: a word costs two transfers, as in a large memcpy, instead of
   three. What the caches can hold is better left there, for whoever reads it next. */

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

enum {
    LINE = 64,
    AHEAD_BYTES = 32 << 10, /* what has been asked for and not yet copied */
    CACHED_BYTES = 2 << 20, /* of a second cache, or two cores' */
};

static void fetch(const char *from) { __builtin_prefetch(from, 0, 2 /* into the second cache */); }

#if defined(__SSE2__)
static void copy_line_past_caches(char *to, const char *from) {
    for (size_t word = 0; word < LINE; word += sizeof(__m128i))
        _mm_stream_si128((__m128i *)(to + word), _mm_loadu_si128((const __m128i *)(from + word)));
}
#endif

/* Copy rows of these numbers, or nothing if one of them is not in the matrix.

   matrix: num_rows rows of row_bytes bytes. Only the rows that are asked for are touched.
   rows, count: their numbers.
   out: count rows; may not overlap the matrix.

   Returns -1, or the place in `rows` of the first number that is not 0 to num_rows - 1. The number
   in the function's name changes with its arguments: a library may be older than its caller. */
int64_t copy_rows_1(const char *matrix, int64_t num_rows, int64_t row_bytes, const int64_t *rows,
                    int64_t count, char *out) {
    if (row_bytes < 1)
        return -1;
    for (int64_t i = 0; i < count; i++)
        if (rows[i] < 0 || rows[i] >= num_rows)
            return i;
    const int64_t ahead = row_bytes < AHEAD_BYTES ? AHEAD_BYTES / row_bytes : 1;
#if defined(__SSE2__)
    /* Parts of lines that pass the caches by are slow. */
    const int passes = count * row_bytes > CACHED_BYTES && (uintptr_t)out % LINE == 0 &&
                       row_bytes % LINE == 0;
#endif
    for (int64_t i = 0; i < count; i++) {
        const char *from = matrix + rows[i] * row_bytes;
        const char *next = matrix + rows[i + ahead < count ? i + ahead : count - 1] * row_bytes;
        char *to = out + i * row_bytes;
#if defined(__SSE2__)
        if (passes) {
            for (int64_t byte = 0; byte < row_bytes; byte += LINE) {
                fetch(next + byte);
                copy_line_past_caches(to + byte, from + byte);
            }
            continue;
        }
#endif
        int64_t byte = 0;
        for (; byte + LINE <= row_bytes; byte += LINE) {
            fetch(next + byte);
            memcpy(to + byte, from + byte, LINE);
        }
        fetch(next + row_bytes - 1);
        memcpy(to + byte, from + byte, (size_t)(row_bytes - byte));
    }
#if defined(__SSE2__)
    _mm_sfence(); /* another thread may read the rows next */
#endif
    return -1;
}
