package student

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"sync/atomic"
)

// cursors makes positions in a search into opaque texts, and back. They are encrypted, because dates of birth are in some of them
// and addresses end in logs; and bound to their search, so that none is taken for a position in another.
type cursors struct{ key atomic.Pointer[cipher.AEAD] }

// cursorVersion starts every cursor. Another form, or other keys of an order, get another number.
const cursorVersion = 1

var cursorEncoding = base64.RawURLEncoding.Strict()

// openCursor returns the position in a cursor, or nil when it was not given out for this search.
func (s *Store) openCursor(ctx context.Context, search, cursor string) ([]string, error) {
	aead, err := s.cursorCipher(ctx)
	if err != nil {
		return nil, err
	}
	sealed, err := cursorEncoding.DecodeString(cursor)
	if err != nil || len(sealed) == 0 || sealed[0] != cursorVersion {
		return nil, nil
	}
	content, err := aead.Open(nil, nil, sealed[1:], []byte(search))
	if err != nil {
		return nil, nil
	}
	var position []string
	if err := json.Unmarshal(content, &position); err != nil {
		return nil, fmt.Errorf("decode a cursor of our own: %w", err)
	}
	return position, nil
}

// sealCursor makes a cursor of a position in a search.
func (s *Store) sealCursor(ctx context.Context, search string, position []string) (string, error) {
	aead, err := s.cursorCipher(ctx)
	if err != nil {
		return "", err
	}
	content, err := json.Marshal(position)
	if err != nil {
		return "", fmt.Errorf("encode a cursor: %w", err)
	}
	return cursorEncoding.EncodeToString(aead.Seal([]byte{cursorVersion}, nil, content, []byte(search))), nil
}

// cursorCipher reads the database's key when it is first needed.
func (s *Store) cursorCipher(ctx context.Context) (cipher.AEAD, error) {
	if aead := s.cursors.key.Load(); aead != nil {
		return *aead, nil
	}
	var key []byte
	if err := s.db.Reader(ctx).QueryRow(ctx, "select cursor_key from student_cursor_key").Scan(&key); err != nil {
		return nil, fmt.Errorf("read the key of cursors: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("use the key of cursors: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("use the key of cursors: %w", err)
	}
	s.cursors.key.Store(&aead)
	return aead, nil
}
