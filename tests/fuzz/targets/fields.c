/* Parse any bytes as fields (native/shared/fields.h), and pack what came out again. */
#include "../process.h"
#include "../../../native/shared/fields.h"

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
    char *bytes = guarded_copy(input, size), *cursor = bytes, *key, *value;
    struct buffer packed = {0};
    bool malformed = false;
    while (field_next(&cursor, bytes + size, &key, &value, &malformed))
        field_add(&packed, key, value);
    size_t taken = (size_t)(cursor - bytes);
    expect(malformed == (taken < size), "all is taken unless it is malformed");
    expect(!packed.failed && packed.length == taken, "a field is packed in its own length");
    expect(taken == 0 || memcmp(packed.bytes, input, taken) == 0, "a field is packed as it came");
    free(packed.bytes);
    free(bytes);
    return 0;
}
