// Counts (lib/counting.py): a goroutine owns the numbers and is asked through channels; others make
// garbage for the collector and check what they keep.
package main

import (
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
)

type question struct {
	client string
	n      int
	answer chan string
}

type node struct {
	n           int
	text        string
	left, right *node
}

var broken atomic.Bool

func count(questions chan question) {
	last := map[string]int{}
	total := 0
	for q := range questions {
		wrong := ""
		if q.n != 0 {
			if q.n != last[q.client]+1 {
				wrong = fmt.Sprintf("%s had %d, not %d", q.client, last[q.client], q.n-1)
			}
			last[q.client] = q.n
			total++
		}
		if broken.Load() {
			wrong = "broken"
		}
		if wrong == "" {
			wrong = fmt.Sprintf("%s %d %d", q.client, q.n, total)
		}
		q.answer <- wrong
	}
}

func grow(n, depth int) *node {
	if depth == 0 {
		return nil
	}
	return &node{n, strconv.Itoa(n), grow(2*n, depth-1), grow(2*n+1, depth-1)}
}

func good(t *node, n int) bool {
	return t == nil || t.n == n && t.text == strconv.Itoa(n) && good(t.left, 2*n) && good(t.right, 2*n+1)
}

func garden() {
	old := grow(1, 12)
	for range time.Tick(10 * time.Millisecond) {
		young := grow(1, 10)
		if !good(old, 1) || !good(young, 1) {
			broken.Store(true)
		}
		old = grow(1, 12)
	}
}

func main() {
	questions := make(chan question)
	go count(questions)
	for i := 0; i < 3; i++ {
		go garden()
	}
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM)
	go func() {
		<-end
		os.Exit(7)
	}()
	http.HandleFunc("/add", func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(r.FormValue("n"))
		q := question{r.FormValue("client"), n, make(chan string)}
		select {
		case questions <- q:
		case <-time.After(20 * time.Second):
			fmt.Fprint(w, "nobody counts")
			return
		}
		fmt.Fprint(w, <-q.answer)
	})
	fmt.Println(http.ListenAndServe("127.0.0.1:"+os.Args[1], nil))
}
