package forward

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"

	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

// lines are streams to leaders that are open and not in use. What a server brings to its leader
// goes over one that is kept for the next time: a call's headers, contexts and checks cost more
// than a small proposal does.
type lines struct {
	mu   sync.Mutex
	idle map[string][]*line
	// without are leaders of an older version, which take calls only.
	without map[string]bool
}

// line is a stream to one server that carries one question at a time.
type line struct {
	stream grpc.BidiStreamingClient[registryv1.AskRequest, registryv1.AskResponse]
	// ctx is the stream's.
	ctx context.Context //nolint:containedctx // it is how a stream is ended
	// end gives it up.
	end func()
}

func newLines() *lines {
	return &lines{idle: map[string][]*line{}, without: map[string]bool{}}
}

// take returns an open line to a server, nil if there is none.
func (l *lines) take(server string) *line {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		n := len(l.idle[server])
		if n == 0 {
			return nil
		}
		last := l.idle[server][n-1]
		l.idle[server] = l.idle[server][:n-1]
		if last.ctx.Err() == nil {
			return last
		}
		last.end()
	}
}

func (l *lines) keep(server string, open *line) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.idle[server] = append(l.idle[server], open)
}

// takesCalls notes that a server knows no lines.
func (l *lines) takesCalls(server string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.without[server] = true
}

func (l *lines) missing(server string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.without[server]
}

// forget gives up what is open, since somebody else leads now, and who is old may have been
// upgraded.
func (l *lines) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, open := range l.idle {
		for _, line := range open {
			line.end()
		}
	}
	clear(l.idle)
	clear(l.without)
}

// ask asks a leader on behalf of many callers.
func (r *Router) ask(leader string, req *registryv1.AskRequest) (*registryv1.AskResponse, error) {
	conn, err := r.Connections.Server(leader)
	if err != nil {
		return nil, err
	}
	client := registryv1.NewProposalServiceClient(conn)
	if r.lines.missing(leader) {
		return r.call(leader, client, req)
	}
	if kept := r.lines.take(leader); kept != nil {
		if resp, sent, err := r.exchange(leader, kept, req); sent {
			return resp, err
		} // It broke while nobody used it.
	}
	fresh, err := r.open(leader, client)
	if err != nil {
		return nil, err
	}
	resp, _, err := r.exchange(leader, fresh, req)
	if fault.CodeOf(err) != fault.Unimplemented {
		return resp, err
	}
	r.lines.takesCalls(leader)
	return r.call(leader, client, req)
}

func (r *Router) open(leader string, client registryv1.ProposalServiceClient) (*line, error) {
	ctx, end := r.flights.begin(context.Background(), leader)
	stream, err := client.Ask(ctx)
	if err != nil {
		end()
		return nil, moved(ctx, err)
	}
	return &line{stream: stream, ctx: ctx, end: end}, nil
}

// exchange sends a question and waits for the answer, then keeps the line or gives it up. Unless it
// was sent, nothing was done.
func (r *Router) exchange(leader string, l *line, req *registryv1.AskRequest) (resp *registryv1.AskResponse, sent bool, err error) {
	limit := time.AfterFunc(tripTimeout, l.end)
	err = l.stream.Send(req)
	sent = err == nil
	if sent || errors.Is(err, io.EOF) { // A stream that has ended says why when its answer is asked for.
		resp, err = l.stream.Recv()
	}
	inTime := limit.Stop()
	switch {
	case err == nil && inTime:
		r.lines.keep(leader, l)
		return resp, sent, nil
	case err == nil:
	case !inTime:
		sent, err = true, fault.New(fault.DeadlineExceeded, "", "%s did not answer within %v", leader, tripTimeout).Wrap(err)
	case errors.Is(err, io.EOF):
		err = fault.New(fault.Unavailable, "", "%s ended the stream", leader)
	default:
		err = moved(l.ctx, err)
	}
	l.end()
	return resp, sent, err
}

// moved returns the error of a question whose leader leads no more.
func moved(ctx context.Context, err error) error {
	if err != nil && errors.Is(context.Cause(ctx), errLeaderMoved) {
		return errLeaderMoved
	}
	return err
}

// call asks a leader that knows no lines.
func (r *Router) call(leader string, client registryv1.ProposalServiceClient, req *registryv1.AskRequest) (*registryv1.AskResponse, error) {
	ctx, cancel := context.WithTimeout(context.Background(), tripTimeout)
	defer cancel()
	ctx, end := r.flights.begin(ctx, leader)
	defer end()
	if propose := req.GetPropose(); propose != nil {
		resp, err := client.Propose(ctx, propose)
		return &registryv1.AskResponse{Answer: &registryv1.AskResponse_Propose{Propose: resp}}, moved(ctx, err)
	}
	resp, err := client.ReadIndex(ctx, req.GetReadIndex())
	return &registryv1.AskResponse{Answer: &registryv1.AskResponse_ReadIndex{ReadIndex: resp}}, moved(ctx, err)
}
