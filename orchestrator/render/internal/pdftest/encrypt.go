package pdftest

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/md5"
	"crypto/rc4"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"fmt"
	"slices"
)

// Encryption is a way of the standard security handler (PDF 32000-1, 7.6; the
// last two PDF 32000-2, 7.6, and Adobe's supplement to the first).
type Encryption int

// The ways, by algorithm, length of the key, and revision.
const (
	RC4With40Bits  Encryption = iota // revision 2
	RC4With128Bits                   // 3
	AES128                           // 4
	AES256Adobe                      // 5
	AES256                           // 6
)

// Encryptions are all ways, by name.
var Encryptions = map[string]Encryption{
	"RC4, 40 bits": RC4With40Bits, "RC4, 128 bits": RC4With128Bits, "AES, 128 bits": AES128,
	"AES, 256 bits, by Adobe": AES256Adobe, "AES, 256 bits": AES256,
}

// permissions allow everything.
const permissions int32 = -4

// padding is the string of PDF 32000-1, 7.6.3.3, algorithm 2.
var padding = []byte("\x28\xBF\x4E\x5E\x4E\x75\x8A\x41\x64\x00\x4E\x56\xFF\xFA\x01\x08\x2E\x2E\x00\xB6\xD0\x68\x3E\x80\x2F\x0C\xA9\xFE\x64\x53\x69\x7A")

var fileID = []byte("quire test file.")

// security is a way with its keys.
type security struct {
	way        Encryption
	key        []byte
	dictionary string
}

func newSecurity(way Encryption, user, owner string) *security {
	if way >= AES256Adobe {
		return newSecurity256(way, user, owner)
	}
	s := &security{way: way}
	length, rounds := 16, 50
	if way == RC4With40Bits {
		length, rounds = 5, 0
	}
	padded := func(password string) []byte { return append([]byte(password), padding...)[:32] }
	digest := func(data []byte, more int) []byte {
		sum := md5.Sum(data)
		for range more {
			sum = md5.Sum(sum[:length])
		}
		return sum[:length]
	}
	// Algorithm 3.
	ownerKey := digest(padded(owner), rounds)
	o := ciphered(ownerKey, padded(user), way != RC4With40Bits)
	// Algorithm 2.
	p := int32(permissions)
	s.key = digest(slices.Concat(padded(user), o, binary.LittleEndian.AppendUint32(nil, uint32(p)), fileID), rounds)
	// Algorithms 4 and 5.
	u := ciphered(s.key, padding, false)
	if way != RC4With40Bits {
		sum := md5.Sum(slices.Concat(padding, fileID))
		u = append(ciphered(s.key, sum[:], true), make([]byte, 16)...)
	}
	entries := map[Encryption]string{
		RC4With40Bits:  "/V 1/R 2",
		RC4With128Bits: "/V 2/R 3/Length 128",
		AES128:         "/V 4/R 4/Length 128/CF<</StdCF<</CFM/AESV2/AuthEvent/DocOpen/Length 16>>>>/StmF/StdCF/StrF/StdCF",
	}[way]
	s.dictionary = fmt.Sprintf("<</Filter/Standard%s/P %d/O<%x>/U<%x>>>", entries, p, o, u)
	return s
}

// ciphered is RC4, or with again twenty times, each with another key.
func ciphered(key, data []byte, again bool) []byte {
	out := slices.Clone(data)
	for i := range 20 {
		k := slices.Clone(key)
		for j := range k {
			k[j] ^= byte(i)
		}
		c, err := rc4.NewCipher(k)
		if err != nil {
			panic(err) // a key of 5 to 16 bytes
		}
		c.XORKeyStream(out, out)
		if !again {
			break
		}
	}
	return out
}

// newSecurity256 is algorithms 8, 9 and 10 of PDF 32000-2.
func newSecurity256(way Encryption, user, owner string) *security {
	s := &security{way: way, key: []byte("a key of thirty-two bytes, fixed")}
	secret := func(password, salts string, more []byte) (hash, wrapped []byte) {
		hash = append(s.hash(password, salts[:8], more), salts...)
		return hash, cbc(s.hash(password, salts[8:], more), make([]byte, 16), s.key)
	}
	u, ue := secret(user, "validateuser key", nil)
	o, oe := secret(owner, "validateownerkey", u)
	p := int32(permissions)
	perms := binary.LittleEndian.AppendUint32(nil, uint32(p))
	perms = append(perms, "\xff\xff\xff\xffTadbquir"...)
	block, err := aes.NewCipher(s.key)
	if err != nil {
		panic(err) // 32 bytes
	}
	block.Encrypt(perms, perms)
	revision := 6
	if way == AES256Adobe {
		revision = 5
	}
	s.dictionary = fmt.Sprintf("<</Filter/Standard/V 5/R %d/Length 256/P %d/O<%x>/U<%x>/OE<%x>/UE<%x>/Perms<%x>"+
		"/CF<</StdCF<</CFM/AESV3/AuthEvent/DocOpen/Length 32>>>>/StmF/StdCF/StrF/StdCF>>", revision, p, o, u, oe, ue, perms)
	return s
}

// hash is algorithm 2.B, or what came before it.
func (s *security) hash(password, salt string, more []byte) []byte {
	sum := sha256.Sum256(slices.Concat([]byte(password), []byte(salt), more))
	k := sum[:]
	if s.way == AES256Adobe {
		return k
	}
	for i := 0; ; i++ {
		e := cbc(k[:16], k[16:32], bytes.Repeat(slices.Concat([]byte(password), k, more), 64))
		rest := 0
		for _, b := range e[:16] {
			rest += int(b) // 256 is 1 modulo 3
		}
		switch rest % 3 {
		case 0:
			sum := sha256.Sum256(e)
			k = sum[:]
		case 1:
			sum := sha512.Sum384(e)
			k = sum[:]
		case 2:
			sum := sha512.Sum512(e)
			k = sum[:]
		}
		if i >= 63 && int(e[len(e)-1]) <= i+1-32 {
			return k[:32]
		}
	}
}

func cbc(key, iv, data []byte) []byte {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // 16 or 32 bytes
	}
	out := make([]byte, len(data))
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(out, data)
	return out
}

// stream encrypts the data of an object's stream (algorithms 1 and 1.A).
func (s *security) stream(object int, data []byte) []byte {
	key := s.key
	if s.way < AES256Adobe {
		salt := []byte{byte(object), byte(object >> 8), byte(object >> 16), 0, 0}
		if s.way == AES128 {
			salt = append(salt, "sAlT"...)
		}
		sum := md5.Sum(slices.Concat(s.key, salt))
		key = sum[:min(len(s.key)+5, 16)]
	}
	if s.way < AES128 {
		return ciphered(key, data, false)
	}
	pad := 16 - len(data)%16
	iv := md5.Sum(fmt.Append(nil, object)) // any will do
	return append(iv[:], cbc(key, iv[:], append(slices.Clone(data), bytes.Repeat([]byte{byte(pad)}, pad)...))...)
}
