package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestTextsAndListsKeepTheirContent(t *testing.T) {
	c := newCompact()
	var texts []string
	var lists [][]int
	for i := range 2000 {
		text := strings.Repeat("x", i%70) + fmt.Sprint(i)
		texts = append(texts, c.text(text))
		list := c.list(reflect.TypeFor[[]int](), i%7).Interface().([]int)
		for j := range list {
			if list[j] != 0 {
				t.Fatalf("list %d shares an element with another", i)
			}
			list[j] = i
		}
		lists = append(lists, append(list, -1)[:len(list)]) // must not reach the next one
	}
	for i := range texts {
		if want := strings.Repeat("x", i%70) + fmt.Sprint(i); texts[i] != want {
			t.Fatalf("text %d is %q, not %q", i, texts[i], want)
		}
		if slices.ContainsFunc(lists[i], func(n int) bool { return n != i }) {
			t.Fatalf("list %d is %v", i, lists[i])
		}
	}
	long := strings.Repeat("y", 3*pageSize)
	if c.text(long) != long || c.list(reflect.TypeFor[[]int](), 3*pieceSize).Len() != 3*pieceSize {
		t.Error("what is larger than a piece is cut short")
	}
}

func TestListsThatSayTheSameAreOne(t *testing.T) {
	c := newCompact()
	made := func(values ...int) []int {
		list := c.list(reflect.TypeFor[[]int](), len(values))
		for i, v := range values {
			list.Index(i).SetInt(int64(v))
		}
		return c.again(list).Interface().([]int)
	}
	first, same, other, zero := made(1, 2), made(1, 2), made(1, 3), made(0, 0)
	if &first[0] != &same[0] {
		t.Error("the same is there twice")
	}
	if !slices.Equal(first, []int{1, 2}) || !slices.Equal(other, []int{1, 3}) || !slices.Equal(zero, []int{0, 0}) {
		t.Errorf("%v, %v, %v", first, other, zero)
	}
}
