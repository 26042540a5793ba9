"""Who a certificate says its owner is, for HAProxy, which by itself reads no alternative names."""

from __future__ import annotations

from typing import Final

IDENTITY_LUA: Final = """\
-- The one URI among a certificate's alternative names (RFC 5280, 4.2.1.6). Compiled by netpolicy.
-- Whatever is not read with certainty is an error, and an error is no identity.

-- Return tag, first and last position of the content of the DER element at a position, and the position after it.
local function element(der, at, last)
    assert(at < last, "truncated")
    local tag, length = der:byte(at), der:byte(at + 1)
    assert(tag & 0x1f ~= 0x1f, "long tag")
    local first = at + 2
    if length >= 0x80 then
        local octets = length & 0x7f
        assert(octets >= 1 and octets <= 3 and first + octets - 1 <= last, "length")
        length = 0
        for position = first, first + octets - 1 do
            length = length << 8 | der:byte(position)
        end
        first = first + octets
    end
    assert(first + length - 1 <= last, "length")
    return tag, first, first + length - 1, first + length
end

-- Return the content of an element that must have a tag, as positions.
local function content(der, at, last, wanted)
    local tag, first, final, after = element(der, at, last)
    assert(tag == wanted, "tag")
    return first, final, after
end

local SEQUENCE, OID, BOOLEAN, OCTETS = 0x30, 0x06, 0x01, 0x04
local EXTENSIONS, URI = 0xa3, 0x86
local SUBJECT_ALT_NAME = "\\x55\\x1d\\x11"

local function uri(der)
    local first, last = content(der, 1, #der, SEQUENCE) -- Certificate
    local at, final = content(der, first, last, SEQUENCE) -- TBSCertificate
    local found
    while at <= final do
        local tag, begin, ending, after = element(der, at, final)
        if tag == EXTENSIONS then
            local one, all = content(der, begin, ending, SEQUENCE)
            while one <= all do
                local inside, outside, beyond = content(der, one, all, SEQUENCE)
                local name, end_of_name, value = content(der, inside, outside, OID)
                if der:sub(name, end_of_name) == SUBJECT_ALT_NAME then
                    if der:byte(value) == BOOLEAN then
                        _, _, value = content(der, value, outside, BOOLEAN)
                    end
                    local octets, end_of_octets = content(der, value, outside, OCTETS)
                    local general, end_of_names = content(der, octets, end_of_octets, SEQUENCE)
                    while general <= end_of_names do
                        local kind, from, to, rest = element(der, general, end_of_names)
                        if kind == URI then
                            assert(not found, "two URIs")
                            found = der:sub(from, to)
                        end
                        general = rest
                    end
                end
                one = beyond
            end
        end
        at = after
    end
    return assert(found, "no URI")
end

-- Of hexadecimal, since binary values reach a converter only up to their first zero.
core.register_converters("certificate_uri", function(hex)
    local der = hex:gsub("%x%x", function(octet)
        return string.char(tonumber(octet, 16))
    end)
    local read, found = pcall(uri, der)
    return read and found or ""
end)
"""
