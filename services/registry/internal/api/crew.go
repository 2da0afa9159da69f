package api

// mostIdle is how many goroutines of a crew wait for work.
const mostIdle = 64

// crew does pieces of work at the same time, on goroutines that it keeps: what a call needs of a stack is grown once, not for each.
type crew struct {
	work chan func()
	// idle has room for those that wait.
	idle chan struct{}
	// ends lets them go.
	ends <-chan struct{}
}

func newCrew(ends <-chan struct{}) crew {
	return crew{make(chan func()), make(chan struct{}, mostIdle), ends}
}

// do lets somebody do it, without waiting for them.
func (c crew) do(piece func()) {
	select {
	case c.work <- piece:
	default:
		go c.serve(piece)
	}
}

func (c crew) serve(piece func()) {
	for {
		piece()
		select {
		case c.idle <- struct{}{}:
		default:
			return
		}
		select {
		case piece = <-c.work:
			<-c.idle
		case <-c.ends:
			return
		}
	}
}
