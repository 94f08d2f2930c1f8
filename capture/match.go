package main

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

type match = []expr.Any

const register = 1

func rule(parts ...match) match {
	var whole match
	for _, part := range parts {
		whole = append(whole, part...)
	}
	return whole
}

func meta(key expr.MetaKey, operator expr.CmpOp, value []byte) match {
	return match{
		&expr.Meta{Key: key, Register: register},
		&expr.Cmp{Op: operator, Register: register, Data: value},
	}
}

func tcp() match { return meta(expr.MetaKeyL4PROTO, expr.CmpOpEq, []byte{unix.IPPROTO_TCP}) }

func ofUser(uid uint32) match {
	return meta(expr.MetaKeySKUID, expr.CmpOpEq, binaryutil.NativeEndian.PutUint32(uid))
}

func into(link string) match { return meta(expr.MetaKeyOIFNAME, expr.CmpOpEq, linkName(link)) }

func from(link string) match { return meta(expr.MetaKeyIIFNAME, expr.CmpOpEq, linkName(link)) }

func linkName(link string) []byte {
	name := make([]byte, unix.IFNAMSIZ)
	copy(name, link)
	return name
}

func toPort(port uint16) match {
	return match{
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: binary.BigEndian.AppendUint16(nil, port)},
	}
}

func notToPort(port uint16) match {
	other := toPort(port)
	other[1].(*expr.Cmp).Op = expr.CmpOpNeq
	return other
}

// toLocal holds for every address of the pod, of either family.
func toLocal() match {
	return match{
		&expr.Fib{Register: register, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
	}
}

const (
	sourceV4, targetV4 = 12, 16
	sourceV6, targetV6 = 8, 24
)

func fromRange(prefix netip.Prefix) match { return address(prefix, expr.CmpOpEq, sourceV4, sourceV6) }

func toRange(prefix netip.Prefix) match { return address(prefix, expr.CmpOpEq, targetV4, targetV6) }

func notToRange(prefix netip.Prefix) match { return address(prefix, expr.CmpOpNeq, targetV4, targetV6) }

func address(prefix netip.Prefix, operator expr.CmpOp, offsetV4, offsetV6 uint32) match {
	family, offset := byte(unix.NFPROTO_IPV4), offsetV4
	if prefix.Addr().Is6() {
		family, offset = unix.NFPROTO_IPV6, offsetV6
	}
	value := prefix.Masked().Addr().AsSlice()
	mask := make([]byte, len(value))
	for bit := range prefix.Bits() {
		mask[bit/8] |= 0x80 >> (bit % 8)
	}
	size := uint32(len(value))
	return rule(meta(expr.MetaKeyNFPROTO, expr.CmpOpEq, []byte{family}), match{
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: size},
		&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: size, Mask: mask, Xor: make([]byte, size)},
		&expr.Cmp{Op: operator, Register: register, Data: value},
	})
}

func leave() match { return match{&expr.Verdict{Kind: expr.VerdictReturn}} }

func jump(chain string) match { return match{&expr.Verdict{Kind: expr.VerdictJump, Chain: chain}} }

func redirect(port uint16) match {
	return match{
		&expr.Immediate{Register: register, Data: binary.BigEndian.AppendUint16(nil, port)},
		&expr.Redir{RegisterProtoMin: register},
	}
}
