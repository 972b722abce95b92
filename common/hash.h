/* common/hash.h - the hashes in use, one function each, so that two stages that
 * must agree cannot disagree.
 *
 * Errors   None: hashing cannot fail. hash_random_* abort if the kernel has no entropy.
 * Threads  Any.
 * Source   XXH3 (xxhash.com); murmur2 as in Apache Kafka's
 *          org.apache.kafka.common.utils.Utils; SHA-256: FIPS 180-4 (libcrypto).
 */
#ifndef COMMON_HASH_H
#define COMMON_HASH_H

#include <stddef.h>
#include <stdint.h>

enum { HASH_SHA256_SIZE = 32, HASH_SHA256_HEX_SIZE = 65 };

struct hash_sha256; /* a running SHA-256 */

/* XXH3, 64 bits, with a seed. For tables and checksums; not for secrets. */
uint64_t hash64(const void *data, size_t size, uint64_t seed);

/* Kafka's partition of key: toPositive(murmur2(key)) % partitions. */
uint32_t hash_partition(const void *key, size_t size, uint32_t partitions);
uint32_t hash_murmur2(const void *data, size_t size);

void hash_sha256_of(const void *data, size_t size, uint8_t out[HASH_SHA256_SIZE]);
struct hash_sha256 *hash_sha256_new(void);
void hash_sha256_add(struct hash_sha256 *sha, const void *data, size_t size);
/* Finishes and frees sha. */
void hash_sha256_end(struct hash_sha256 *sha, uint8_t out[HASH_SHA256_SIZE]);

/* Lower-case hex and a terminator: text has 2 * size + 1 bytes. */
void hash_hex(const void *data, size_t size, char *text);

/* From the kernel. */
void hash_random_bytes(void *out, size_t size);
uint64_t hash_random_u64(void);

#endif
