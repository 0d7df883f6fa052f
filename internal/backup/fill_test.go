package backup

import (
	"slices"
	"testing"
)

func TestKeysComeBeforeIndexesAndWhatNeedsBothComesLast(t *testing.T) {
	t.Parallel()
	entries := []string{
		"3332; 2606 16452 CONSTRAINT public student student_pkey owner",
		"3340; 2606 16460 CONSTRAINT public class class_pkey owner",
		"3333; 2606 16453 CONSTRAINT public student student_mobile_key owner",
		"3316; 1259 16571 INDEX public student_search owner",
		"3350; 0 0 INDEX ATTACH public event_2025_pkey owner",
		"3351; 0 0 COMMENT public INDEX student_search owner",
		"3352; 2606 16461 FK CONSTRAINT public student student_class_fkey owner",
		"3353; 2620 16470 TRIGGER public student student_feed owner",
		"3354; 3381 16515 STATISTICS public student_names owner",
	}
	keys, indexes, rest := ordered(entries)
	if len(keys) != 2 || !slices.Equal(keys[0], []string{entries[0], entries[2]}) || !slices.Equal(keys[1], entries[1:2]) {
		t.Errorf("keys by table: %q", keys)
	}
	if !slices.Equal(indexes, entries[3:4]) || !slices.Equal(rest, entries[4:]) {
		t.Errorf("indexes %q, then %q", indexes, rest)
	}
}
